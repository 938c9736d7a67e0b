/** Answers about the last run of each workflow, asked for once, until another run ends. */
export class LastRuns {
  /** `ask(workflow)` gives a promise of what the server's history has of it. */
  constructor(ask) {
    Object.assign(this, { ask, answers: new Map() });
  }

  /** The answer, or {} where the question fails; it is then asked anew the next time. */
  of(workflow) {
    if (!this.answers.has(workflow)) {
      const answer = this.ask(workflow).catch(() => {
        if (this.answers.get(workflow) === answer) this.answers.delete(workflow);
        return {};
      });
      this.answers.set(workflow, answer);
    }
    return this.answers.get(workflow);
  }

  /** Another run has ended: what was answered may be of the run before it. */
  forget() {
    this.answers.clear();
  }
}
