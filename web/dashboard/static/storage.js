/** What a browser keeps for us, where its person lets it. */

/** @param {"localStorage"|"sessionStorage"} kind */
export function recall(kind, name) {
  try {
    return window[kind].getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a text; null lets go of it. */
export function keep(kind, name, text) {
  try {
    if (text === null) window[kind].removeItem(name);
    else window[kind].setItem(name, text);
  } catch {
    // Then it lasts as long as the page does.
  }
}
