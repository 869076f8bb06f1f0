//! Settle: guard the logits, share full blocks, draw tokens, tell the sinks.

use crate::engine::{Engine, Work};
use crate::forward::ForwardModel;
use crate::request::{Event, Failure, Finish, RequestId};

impl<M: ForwardModel> Engine<M> {
    /// Take the outcome of `work`; `outcome` holds logits [work, V].
    pub(crate) fn settle(&mut self, work: &[Work], outcome: Result<Vec<f32>, String>) {
        self.stats.steps += 1;
        self.stats.batch_sequences = work.len();
        self.stats.batch_rows = work.iter().map(|w| w.positions.len()).sum();
        match outcome {
            Ok(logits) => {
                let rows = logits.chunks_exact(self.model.vocab_size());
                for (w, row) in work.iter().zip(rows) {
                    if let Some(finish) = self.settle_one(w, row) {
                        self.finish(w.id, finish);
                    }
                }
            }
            Err(reason) => {
                let failed = || Finish::Failed(Failure::Forward(reason.clone()));
                work.iter().for_each(|w| self.finish(w.id, failed()));
            }
        }
    }

    fn finish(&mut self, id: RequestId, finish: Finish) {
        if let Some(sequence) = self.remove(id) {
            self.end(sequence, finish);
        }
    }

    /// How the request ends, if it does; `row` [V] is the last one of its work.
    fn settle_one(&mut self, w: &Work, row: &[f32]) -> Option<Finish> {
        let sequence = self.running.get_mut(&w.id).expect("nobody leaves between schedule and settle");
        if row.iter().any(|l| !l.is_finite()) {
            return Some(Finish::Failed(Failure::NonFinite { position: w.positions.end - 1 }));
        }
        let n_prompt = sequence.generation.n_prompt;
        let first_new = sequence.n_known().max(w.positions.start);
        self.stats.recomputed_tokens += (first_new.min(w.positions.end) - w.positions.start) as u64;
        self.stats.prefill_tokens += w.positions.end.min(n_prompt).saturating_sub(first_new) as u64;
        sequence.advance(w.positions.clone(), w.phase, self.model.phases_differ());
        if self.settings.prefix_cache {
            sequence.share(&mut self.blocks);
        }
        if !w.samples {
            return None;
        }
        match sequence.generation.next(row, &mut self.draw) {
            Ok((token, finish)) => {
                self.stats.generated_tokens += 1;
                sequence.tell(Event::Token(token));
                finish
            }
            Err(failure) => Some(Finish::Failed(failure)),
        }
    }
}
