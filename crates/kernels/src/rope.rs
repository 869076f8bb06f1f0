//! Rotary position embedding on interleaved pairs (Su et al. 2021): dims 2i and 2i+1 turn together, as in the
//! published `deepseek_v3` modelling code.

/// Cosines and sines of the positions in a batch, [T, D/2] each, D the width that is rotated.
#[derive(Default)]
pub struct RopeTable {
    n_pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Fill for `positions` `[T]` (tokens from the start of the sequence) and `inv_freq` [D/2] (radians a token);
    /// cosines and sines are times `attention_factor`.
    ///
    /// The angle is the `f32` product of position and frequency, as the published modelling code computes it; its
    /// cosine and sine are taken in `f64`.
    pub fn fill(&mut self, positions: &[usize], inv_freq: &[f32], attention_factor: f32) {
        self.n_pairs = inv_freq.len();
        self.cos.clear();
        self.sin.clear();
        for &position in positions {
            for &frequency in inv_freq {
                let angle = f64::from(position as f32 * frequency);
                self.cos.push(angle.cos() as f32 * attention_factor);
                self.sin.push(angle.sin() as f32 * attention_factor);
            }
        }
    }

    /// Rotate `x` `[D]` in place by the position of row `t`.
    ///
    /// # Panics
    /// If the table has no row `t`.
    pub fn rotate(&self, t: usize, x: &mut [f32]) {
        let span = t * self.n_pairs..(t + 1) * self.n_pairs;
        let (cos, sin) = (&self.cos[span.clone()], &self.sin[span]);
        for ((pair, cos), sin) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            let [even, odd] = *pair;
            *pair = [even * cos - odd * sin, odd * cos + even * sin];
        }
    }

    /// Derivative of [`RopeTable::rotate`]: the gradient `dx` `[D]` of its output becomes that of its input.
    pub fn rotate_back(&self, t: usize, dx: &mut [f32]) {
        let span = t * self.n_pairs..(t + 1) * self.n_pairs;
        let (cos, sin) = (&self.cos[span.clone()], &self.sin[span]);
        for ((pair, cos), sin) in dx.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            let [even, odd] = *pair;
            *pair = [even * cos + odd * sin, odd * cos - even * sin];
        }
    }
}
