//! What of a checkpoint's files a start reads: the pages between opening it and the first token's logits.

use crate::checkpoint::{Checkpoint, Tensor};
use crate::layout::{self, Kind, Role};
use perilune_kernels::map::{MappedFile, PAGE_BYTES, pages};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Pages of one mapped file.
#[derive(Debug)]
pub struct FilePages {
    /// The file.
    pub file: Arc<MappedFile>,
    /// Indices of whole pages, ascending, neither touching nor overlapping.
    pub pages: Vec<Range<usize>>,
}

impl FilePages {
    /// Bytes of the pages, the last one's rest beyond the file's end counted.
    pub fn n_bytes(&self) -> u64 {
        self.pages.iter().map(|pages| (pages.len() * PAGE_BYTES) as u64).sum()
    }
}

/// The pages that hold the shards' headers, every tensor that each token passes, the embedding's rows of `ids` `[T]` and
/// the routed experts of `chosen` (layer and expert). The same in every load mode: what is re-encoded is read once, what
/// is not is read by the first pass.
pub fn by_first_pass(
    checkpoint: &Checkpoint,
    ids: &[u32],
    chosen: &BTreeSet<(usize, u32)>,
) -> Vec<FilePages> {
    let mut touched: Vec<(Arc<MappedFile>, Vec<Range<usize>>)> =
        checkpoint.shards().iter().map(|shard| (Arc::clone(shard.file()), vec![shard.header()])).collect();
    let mut add = |tensor: &Tensor<'_>, range: Range<usize>| {
        if let Some((_, ranges)) = touched.iter_mut().find(|(file, _)| Arc::ptr_eq(file, tensor.file)) {
            ranges.push(range);
        }
    };
    let config = &checkpoint.config;
    let stems: HashSet<String> = chosen.iter().flat_map(|chosen| expert_stems(checkpoint, *chosen)).collect();
    for spec in layout::expected(config) {
        let Some(tensor) = checkpoint.tensor(&spec.name) else { continue };
        let is_whole = match (spec.kind, spec.role) {
            (_, Role::StoredShape(_)) => false,
            (Kind::Embedding, _) => config.tie_word_embeddings,
            (Kind::RoutedExpert, _) => {
                spec.name.rsplit_once(".weight").is_some_and(|(stem, _)| stems.contains(stem))
            }
            _ => true,
        };
        if is_whole {
            add(&tensor, tensor.range.clone());
        } else if spec.kind == Kind::Embedding {
            let row_bytes = tensor.range.len() / config.vocab_size;
            for id in ids.iter().map(|id| *id as usize).filter(|id| *id < config.vocab_size) {
                let start = tensor.range.start + id * row_bytes;
                add(&tensor, start..start + row_bytes);
            }
        }
    }
    touched.into_iter().map(|(file, ranges)| FilePages { file, pages: whole_pages(ranges) }).collect()
}

/// Names of an expert's matrices without their last part.
fn expert_stems(checkpoint: &Checkpoint, (layer_idx, expert_idx): (usize, u32)) -> [String; 3] {
    ["gate_proj", "up_proj", "down_proj"]
        .map(|matrix| layout::expert_matrix(&checkpoint.config, layer_idx, expert_idx as usize, matrix))
}

/// The pages that some of `ranges`, bytes of a file, touch.
fn whole_pages(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = ranges.iter().filter(|range| !range.is_empty()).map(pages).collect();
    all.sort_by_key(|pages| (pages.start, pages.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for pages in all {
        match merged.last_mut() {
            Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
            _ => merged.push(pages),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_once_and_neighbours_are_one_range() {
        let page = PAGE_BYTES;
        let ranges =
            vec![9 * page..9 * page + 1, 10..20, 20..page + 1, 2 * page..2 * page, 3 * page - 1..3 * page];
        assert_eq!(whole_pages(ranges), [0..3, 9..10]);
        assert_eq!(whole_pages(Vec::new()), Vec::<Range<usize>>::new());
    }
}
