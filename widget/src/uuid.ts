/** crypto.randomUUID is only there on secure pages, and the chat also works on others. */
export function uuid(): string {
  const random = (bits: number): string => (crypto.getRandomValues(new Uint8Array(1))[0]! & bits).toString(16);
  return 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replace(/x/g, () => random(15)).replace('y', '89ab'[Number(random(3))]!);
}
