/** What a screen reader is told of the timeline: the milestones, not every tenth of a second. */
import { byId, setText } from './dom.js';
import { duration, plural } from './words.js';

const PAUSE_MS = 1_500;

/** `onEnd(view)` hears once of each message that came through or was given up. */
export function createMilestones({ onEnd }) {
  let last = '';
  let timer;
  let next = '';

  function say(text) {
    next = text;
    timer ??= setTimeout(() => {
      timer = undefined;
      setText(byId('milestone'), next);
    }, PAUSE_MS);
  }

  return {
    tell(view) {
      const told = milestoneOf(view);
      const key = told.replace(/\d[\d.]* m?s/g, '');
      if (!told || key === last) return;
      const before = last;
      last = key;
      say(told);
      if (['delivered', 'dead'].includes(view.outcome) && before) onEnd(view);
    },
  };
}

function milestoneOf(view) {
  if (view.outcome === 'idle') return '';
  if (view.outcome === 'delivered') return `Delivered ${duration(view.total)} after it was written.`;
  const dead = view.stages.find((stage) => stage.state === 'dead');
  if (dead) return `${dead.title}: ${dead.note}.`;
  const held = view.stages.find((stage) => stage.state === 'held');
  if (held) return `${held.title}: ${held.note}.`;
  const failing = view.stages.find((stage) => ['waiting', 'running'].includes(stage.state) && stage.errors.length);
  if (failing) return `${failing.title}: ${plural(failing.errors.length, 'try', 'tries')} failed, it is tried again.`;
  const reached = view.stages.findLast((stage) => stage.state !== 'idle');
  return reached ? `The message is at ${reached.title}.` : '';
}
