/** Where the visitor writes: the text, the files that go with it, and the button. */
import { asFailure } from './api';
import type { Chat } from './chat';
import { h, iconButton, set, setText } from './dom';
import { icon } from './icons';
import type { Look } from './look';
import { formatSize } from './texts';
import type { Translate } from './texts';
import type { Attachment } from './wire';

const MAX_FILES = 5;
const MAX_HEIGHT_PX = 140;

/** What the server says against a file, in words that are translated. */
const REFUSALS: Record<string, 'The file is too large.' | 'This type of file cannot be sent.'> = {
  too_large: 'The file is too large.',
  unsupported_type: 'This type of file cannot be sent.',
  lying_type: 'This type of file cannot be sent.',
};

interface Upload {
  element: HTMLElement;
  attachment: Attachment | null;
}

export interface ComposerOptions {
  chat: Chat;
  t: Translate;
  notice: (text: string) => void;
}

export interface Composer {
  element: HTMLElement;
  input: HTMLTextAreaElement;
  render: (look: Look) => void;
  add: (files: Iterable<File>) => void;
  /** Forget what was not sent: it may be another person's. */
  clear: () => void;
  /** The picture of an attachment that was made here. */
  preview: (id: string) => string | undefined;
}

export function createComposer({ chat, t, notice }: ComposerOptions): Composer {
  const uploads = new Set<Upload>();
  const previews = new Map<string, string>();
  let look: Look;

  const input = h('textarea', 'input', {
    rows: '1',
    dir: 'auto',
    enterkeyhint: 'send',
    oninput: () => {
      chat.typing(input.value.trim() !== '');
      fit();
    },
    onblur: () => chat.typing(false),
    onkeydown: (event: KeyboardEvent) => {
      // While an input method composes, Enter chooses a word; Safari says so only by the old key code.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      submit();
    },
    onpaste: (event: ClipboardEvent) => {
      const files = event.clipboardData?.files;
      if (!files?.length || !look.uploads || event.clipboardData!.getData('text/plain')) return;
      event.preventDefault();
      add(files);
    },
  });
  const picker = h('input', 'picker', {
    type: 'file',
    multiple: true,
    hidden: true,
    onchange: () => {
      add(picker.files ?? []);
      picker.value = '';
    },
  });
  const attach = iconButton('attach', 'attach', t('Attach a file'), () => picker.click());
  const send = iconButton('send', 'send', t('Send'), null, { type: 'submit' });
  const files = h('div', 'files');
  const counter = h('div', 'counter', { role: 'status' });
  const element = h(
    'form',
    'composer',
    {
      onsubmit: (event: Event) => {
        event.preventDefault();
        submit();
      },
    },
    files,
    counter,
    h('div', 'field', {}, attach, picker, input, send),
  );

  function isReady(): boolean {
    const all = [...uploads];
    const isWritten = input.value.trim() !== '' || all.length > 0;
    return isWritten && all.every((upload) => upload.attachment) && charsLeft() >= 0 && !chat.isRefused;
  }

  function charsLeft(): number {
    return look.max_chars - input.value.trim().length;
  }

  /** Why it cannot be sent, where the visitor can do something about it. */
  function hindrance(): string {
    if (charsLeft() < 0) return t('The text is too long.');
    const states = [...uploads].map((upload) => upload.element.dataset['state']);
    if (states.includes('failed')) return t('Remove the file that could not be sent.');
    return states.includes('uploading') ? t('Sending…') : '';
  }

  /** As high as its text, up to a point. */
  function fit(): void {
    input.style.height = 'auto';
    input.style.height = `${Math.min(input.scrollHeight, MAX_HEIGHT_PX)}px`;
    update();
  }

  function update(): void {
    // Not `disabled`: the button must not throw away the focus that is on it.
    set(send, 'aria-disabled', isReady() ? null : 'true');
    const left = charsLeft();
    // From a tenth before the end on; nothing is cut.
    setText(counter, left < look.max_chars / 10 ? `${look.max_chars - left} / ${look.max_chars}` : '');
    set(counter, 'data-over', left < 0 && 'true');
  }

  function submit(): void {
    if (!isReady()) return notice(hindrance());
    const attachments = [...uploads].map((upload) => upload.attachment!);
    if (!chat.send(input.value.trim(), attachments)) return notice(t('Connection lost. Reconnecting…'));
    clear();
    input.focus();
  }

  function clear(): void {
    input.value = '';
    uploads.clear();
    files.replaceChildren();
    chat.typing(false);
    fit();
  }

  function add(chosen: Iterable<File>): void {
    for (const file of chosen) {
      if (!look.uploads) return;
      if (uploads.size >= MAX_FILES) return notice(t('At most 5 files.'));
      if (!look.upload_types.includes(file.type)) notice(`${file.name}: ${t('This type of file cannot be sent.')}`);
      else if (file.size > look.upload_max_bytes) notice(`${file.name}: ${t('The file is too large.')}`);
      else begin(file);
    }
    update();
  }

  function begin(file: File): void {
    const url = file.type.startsWith('image/') ? URL.createObjectURL(file) : '';
    const state = h('span', 'state');
    const remove = iconButton('remove', 'close', `${t('Discard')}: ${file.name}`, () => {
      uploads.delete(upload);
      upload.element.remove();
      update();
      input.focus();
    });
    const picture = url ? h('img', '', { src: url, alt: '', onerror: () => picture.replaceWith(icon('file')) }) : icon('file');
    const upload: Upload = {
      attachment: null,
      element: h('div', 'file upload', {}, picture, h('span', 'name', {}, h('b', '', {}, file.name), state), remove),
    };
    uploads.add(upload);
    files.append(upload.element);
    void load();

    function show(name: 'uploading' | 'failed' | 'done', text: string): void {
      set(upload.element, 'data-state', name);
      setText(state, text);
      update();
    }

    async function load(): Promise<void> {
      show('uploading', t('Sending…'));
      try {
        upload.attachment = await chat.upload(file);
        if (url) previews.set(upload.attachment.id, url);
        show('done', formatSize(file.size));
      } catch (error) {
        const { code = '', detail } = asFailure(error).problem;
        const ours = REFUSALS[code];
        show('failed', ours ? t(ours) : (detail ?? t('That failed.')));
      }
    }
  }

  return {
    element,
    input,
    add,
    clear,
    preview: (id) => previews.get(id),
    render(next) {
      look = next;
      set(input, 'placeholder', look.placeholder);
      set(input, 'aria-label', look.placeholder);
      set(picker, 'accept', look.upload_types.join());
      attach.hidden = !look.uploads;
      element.hidden = chat.isRefused;
      update();
    },
  };
}
