/** The customer's one colour, made to be readable wherever it stands. */

type Rgb = [number, number, number];

/** The smallest contrast for text of normal size (WCAG 2 AA) is 4.5; the rest is for rounding (see luminance). */
const AA = 4.85;
/** What answers stand on, light and dark (see styles.css); on the panel's own ground the contrast is higher. */
const GROUNDS = { light: '#f1f3f6', dark: '#272a31' };
const DEFAULT = '#3b4fd8';

/** The custom properties that come of the customer's colour. */
export function palette(color: string | null, isDark: boolean): Record<'--accent' | '--on-accent' | '--accent-text', string> {
  // Nothing but these two forms gets into a style.
  const accent = color && /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.test(color) ? color : DEFAULT;
  const rgb = parse(accent);
  const ground = parse(GROUNDS[isDark ? 'dark' : 'light']);
  let text = rgb;
  for (let share = 0; contrast(text, ground) < AA; share += 0.05) {
    text = rgb.map((part) => Math.round(part + ((isDark ? 255 : 0) - part) * share)) as Rgb;
  }
  return {
    '--accent': accent,
    '--on-accent': contrast(rgb, [0, 0, 0]) > contrast(rgb, [255, 255, 255]) ? '#000' : '#fff',
    '--accent-text': `rgb(${text.join()})`,
  };
}

function parse(color: string): Rgb {
  const digits = color.length === 4 ? color.replace(/[^#]/g, '$&$&') : color;
  const value = parseInt(digits.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

export function contrast(a: Rgb, b: Rgb): number {
  const [one, other] = [luminance(a) + 0.05, luminance(b) + 0.05];
  return Math.max(one / other, other / one);
}

/** With the plain power instead of sRGB's two pieces; the margin above covers what that is off. */
function luminance(rgb: Rgb): number {
  const [r, g, b] = rgb.map((part) => (part / 255) ** 2.2) as Rgb;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
