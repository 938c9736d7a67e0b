/** Signs of the player's buttons, filled, 16x16. */

export const ICONS = {
  odd: "M8 1.5 15.2 14H.8zM7.1 6v4h1.8V6zm0 5.2V13h1.8v-1.8z",
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  back: "M12 2.5v11L5 8zM3 2.5h2v11H3z",
  forward: "M4 2.5v11L11 8zM11 2.5h2v11h-2z",
  large: "M2 2h5v2H4v3H2zM9 2h5v5h-2V4H9zM2 9h2v3h3v2H2zM12 9h2v5H9v-2h3z",
  close: "M3 4.4 4.4 3 8 6.6 11.6 3 13 4.4 9.4 8l3.6 3.6-1.4 1.4L8 9.4 4.4 13 3 11.6 6.6 8z",
};
