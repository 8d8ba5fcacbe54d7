// Loads a file from the page's own host.

export async function load(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error(`${address} cannot be fetched; check the connection and try again`);
  }
  if (!answer.ok) throw new Error(`${address}: the host answered ${answer.status}; is its folder complete?`);
  return answer;
}
