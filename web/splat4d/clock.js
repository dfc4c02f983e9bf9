// The place in time of a player, counted in frames from 0 to the last one.

export const MODES = ["loop", "back and forth", "once"];

/** Plays, and knows where it is. */
export class Clock {
  constructor() {
    this.mode = MODES[0];
    this.speed = 1;
    this.fps = 12;
    this.last = 0; // place that is reached now; more may come
    this.playing = false;
    this.run = 0; // frames since the beginning of the round, 0 to `period`
  }

  /** Frames in a round: a loop shows its last frame as long as the others. */
  get period() {
    if (this.mode === "loop") return this.last + 1;
    return this.mode === "once" ? this.last : 2 * this.last;
  }

  get place() {
    const back = this.mode === "back and forth" && this.run > this.last;
    return back ? 2 * this.last - this.run : Math.min(this.run, this.last);
  }

  set place(place) {
    this.run = Math.min(Math.max(place, 0), this.last);
  }

  /** Change how it goes on, without a jump. */
  setMode(mode) {
    const place = this.place;
    this.mode = mode;
    this.place = place;
  }

  /** Start or stop; at its end it starts again. */
  toggle() {
    if (!this.playing && this.mode === "once" && this.run >= this.last) this.run = 0;
    this.playing = !this.playing;
  }

  /** Let seconds go by. */
  advance(seconds) {
    if (!this.playing || this.last === 0) return;
    this.run += seconds * this.fps * this.speed;
    if (this.run < this.period) return;
    if (this.mode === "once") {
      this.run = this.last;
      this.playing = false;
    } else {
      this.run %= this.period;
    }
  }
}
