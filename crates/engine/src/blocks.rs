//! Who owns each block: the free list, a sequence, or the tree of shared prefixes.
//!
//! A node of the tree is a full block; its index is the block's. Nodes are found by parent, the block's 64 token ids
//! and the phase each was written in, compared in full: there is no hash to collide. The ids of a path and their
//! phases determine what the block holds.

use perilune_model::cache::Cache;
use std::collections::{BTreeMap, BTreeSet};

/// Tokens in a block.
pub(crate) const BLOCK_TOKENS: usize = perilune_kernels::BLOCK_TOKENS;

/// Parent of the first block.
const ROOT: u32 = u32::MAX;

/// Phases of a block's tokens: bit i is set where decode wrote token i.
pub(crate) type PhaseBits = u64;
const _: () = assert!(BLOCK_TOKENS == PhaseBits::BITS as usize);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    parent: u32,
    ids: [u32; BLOCK_TOKENS],
    phases: PhaseBits,
}

struct Node {
    key: Key,
    /// Sequences whose chain it is part of.
    n_locks: u32,
    n_children: u32,
    last_used: u64,
    /// Whether a lookup may find it.
    listed: bool,
}

/// All blocks of the cache.
pub(crate) struct Blocks {
    free: Vec<u32>,
    nodes: Vec<Option<Node>>,
    index: BTreeMap<Key, u32>,
    /// Nodes without locks and children, least recently used first.
    evictable: BTreeSet<(u64, u32)>,
    n_unlocked: usize,
    tick: u64,
    n_evicted: u64,
}

impl Blocks {
    pub(crate) fn new(n_blocks: usize) -> Self {
        Blocks {
            free: (0..n_blocks as u32).rev().collect(),
            nodes: (0..n_blocks).map(|_| None).collect(),
            index: BTreeMap::new(),
            evictable: BTreeSet::new(),
            n_unlocked: 0,
            tick: 0,
            n_evicted: 0,
        }
    }

    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Cached blocks that nobody uses now.
    pub(crate) fn n_cached(&self) -> usize {
        self.n_unlocked
    }

    /// Blocks that [`Self::take`] could give.
    pub(crate) fn n_available(&self) -> usize {
        self.free.len() + self.n_unlocked
    }

    pub(crate) fn n_evicted(&self) -> u64 {
        self.n_evicted
    }

    pub(crate) fn phases(&self, block: u32) -> PhaseBits {
        self.node(block).key.phases
    }

    /// The longest cached chain that `ids` starts with, whatever the phases; of equals the one prefill wrote.
    pub(crate) fn longest(&self, ids: &[u32]) -> Vec<u32> {
        let ids = ids.as_chunks::<BLOCK_TOKENS>().0;
        let (mut best, mut path) = (Vec::new(), Vec::new());
        // Variants of a block are nodes of their own, so no more places are visited than there are nodes.
        let mut open: Vec<(usize, u32)> = self.variants(ROOT, ids.first()).map(|block| (0, block)).collect();
        while let Some((depth, block)) = open.pop() {
            path.truncate(depth);
            path.push(block);
            let n_open = open.len();
            open.extend(self.variants(block, ids.get(depth + 1)).map(|block| (depth + 1, block)));
            if open.len() == n_open && path.len() > best.len() {
                best.clone_from(&path);
            }
        }
        best
    }

    /// Children of `parent` that hold `ids`, those with decode's tokens first.
    fn variants(&self, parent: u32, ids: Option<&[u32; BLOCK_TOKENS]>) -> impl Iterator<Item = u32> {
        let key = move |ids: &[u32; BLOCK_TOKENS], phases| Key { parent, ids: *ids, phases };
        let span = move |ids| self.index.range(key(ids, 0)..=key(ids, PhaseBits::MAX));
        ids.into_iter().flat_map(span).rev().map(|(_, block)| *block)
    }

    /// The longest cached chain of exactly these ids and phases.
    pub(crate) fn exact(&self, ids: &[u32], phases: &[PhaseBits]) -> Vec<u32> {
        let mut chain = Vec::new();
        let mut parent = ROOT;
        for (ids, &phases) in ids.as_chunks::<BLOCK_TOKENS>().0.iter().zip(phases) {
            let Some(&block) = self.index.get(&Key { parent, ids: *ids, phases }) else { break };
            chain.push(block);
            parent = block;
        }
        chain
    }

    /// Blocks of a chain that nobody uses.
    pub(crate) fn n_unlocked_of(&self, chain: &[u32]) -> usize {
        chain.iter().filter(|&&block| self.node(block).n_locks == 0).count()
    }

    /// One more sequence uses the chain.
    pub(crate) fn lock(&mut self, chain: &[u32]) {
        for &block in chain {
            let node = self.node_mut(block);
            node.n_locks += 1;
            if node.n_locks == 1 {
                let place = (node.last_used, block);
                self.evictable.remove(&place);
                self.n_unlocked -= 1;
            }
        }
    }

    /// One sequence fewer uses the chain.
    pub(crate) fn unlock(&mut self, chain: &[u32]) {
        self.tick += 1;
        let tick = self.tick;
        for &block in chain.iter().rev() {
            let node = self.node_mut(block);
            node.n_locks -= 1;
            if node.n_locks == 0 {
                node.last_used = tick;
                self.n_unlocked += 1;
                self.settle(block);
            }
        }
    }

    /// A block to write to, from the free list or the least recently used end of the tree.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        let (_, block) = *self.evictable.first()?;
        self.n_evicted += 1;
        self.remove(block);
        self.free.pop()
    }

    /// A sequence's own block is no longer needed.
    pub(crate) fn give_back(&mut self, block: u32) {
        self.free.push(block);
    }

    /// Make a sequence's own full `block` findable below `parent`, locked for it; the block to use from now on.
    ///
    /// Where the same block is there already that one is used and `block` given back.
    pub(crate) fn share(
        &mut self,
        parent: Option<u32>,
        ids: &[u32; BLOCK_TOKENS],
        phases: PhaseBits,
        block: u32,
    ) -> u32 {
        let key = Key { parent: parent.unwrap_or(ROOT), ids: *ids, phases };
        if let Some(&known) = self.index.get(&key) {
            self.give_back(block);
            self.lock(&[known]);
            return known;
        }
        if let Some(parent) = parent {
            self.node_mut(parent).n_children += 1;
        }
        self.index.insert(key.clone(), block);
        self.nodes[block as usize] =
            Some(Node { key, n_locks: 1, n_children: 0, last_used: 0, listed: true });
        block
    }

    /// Nobody finds the blocks of `chain` any more; each is freed when its last user and child are gone.
    pub(crate) fn unlist(&mut self, chain: &[u32]) {
        for &block in chain {
            let node = self.node_mut(block);
            node.listed = false;
            let key = node.key.clone();
            if self.index.get(&key) == Some(&block) {
                self.index.remove(&key);
            }
        }
    }

    /// An unlocked node without children is evictable, or gone at once where it is not listed.
    fn settle(&mut self, block: u32) {
        let node = self.node(block);
        if node.n_locks > 0 || node.n_children > 0 {
            return;
        }
        if node.listed {
            let place = (node.last_used, block);
            self.evictable.insert(place);
        } else {
            self.remove(block);
        }
    }

    fn remove(&mut self, block: u32) {
        let node = self.nodes[block as usize].take().expect("callers name nodes of the tree");
        self.evictable.remove(&(node.last_used, block));
        if node.listed {
            self.index.remove(&node.key);
        }
        self.n_unlocked -= 1;
        self.free.push(block);
        if node.key.parent != ROOT {
            self.node_mut(node.key.parent).n_children -= 1;
            self.settle(node.key.parent);
        }
    }

    fn node(&self, block: u32) -> &Node {
        self.nodes[block as usize].as_ref().expect("chains hold nodes, and a locked node or parent stays")
    }

    fn node_mut(&mut self, block: u32) -> &mut Node {
        self.nodes[block as usize].as_mut().expect("chains hold nodes, and a locked node or parent stays")
    }

    /// Check that each block is owned once and that the tree's counts are right; `chains` are the shared blocks of
    /// each sequence, `own` the blocks that sequences hold alone.
    pub(crate) fn audit(&self, chains: &[&[u32]], own: &[u32]) -> Result<(), String> {
        let mut owners = vec![0u32; self.nodes.len()];
        self.free.iter().chain(own).for_each(|b| owners[*b as usize] += 1);
        let mut locks = vec![0u32; self.nodes.len()];
        let mut children = vec![0u32; self.nodes.len()];
        chains.iter().copied().flatten().for_each(|b| locks[*b as usize] += 1);
        for node in self.nodes.iter().flatten().filter(|node| node.key.parent != ROOT) {
            children[node.key.parent as usize] += 1;
        }
        for (i, node) in self.nodes.iter().enumerate() {
            owners[i] += u32::from(node.is_some());
            let (n_locks, n_children) = node.as_ref().map_or((0, 0), |n| (n.n_locks, n.n_children));
            if owners[i] != 1 || n_locks != locks[i] || n_children != children[i] {
                return Err(format!(
                    "block {i}: {} owners; {n_locks} locks, {} held; {n_children} children, {} there",
                    owners[i], locks[i], children[i]
                ));
            }
        }
        self.audit_index()
    }

    fn audit_index(&self) -> Result<(), String> {
        let nodes = || self.nodes.iter().flatten();
        let listed = nodes().filter(|n| n.listed).count();
        let unlocked = nodes().filter(|n| n.n_locks == 0).count();
        let leaves = nodes().filter(|n| n.n_locks == 0 && n.n_children == 0).count();
        if (listed, unlocked, leaves) != (self.index.len(), self.n_unlocked, self.evictable.len()) {
            return Err(format!(
                "{listed} listed, {unlocked} unlocked, {leaves} evictable; the books say {}, {}, {}",
                self.index.len(),
                self.n_unlocked,
                self.evictable.len()
            ));
        }
        Ok(())
    }
}

/// Blocks that hold `n_tokens`.
pub(crate) fn blocks_for(n_tokens: usize) -> usize {
    Cache::blocks_for(n_tokens)
}
