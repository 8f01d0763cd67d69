// Names that people give: of objects and of classes.

/** Text as it was typed, with plain spaces. */
export const tidy = (text) => text.replace(/\p{Zs}/gu, " ").trim();

/** Why the server would refuse a name; "" if it would not. */
export const faultOf = (name) => (/[\p{C}\p{Zl}\p{Zp}]/u.test(name) ? "The name contains a control character." : "");
