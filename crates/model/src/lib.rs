//! Here are token ids and a cache, give me logits.
