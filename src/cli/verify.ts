export async function runVerify(_directory: string): Promise<number> {
  throw new Error('not yet');
}
