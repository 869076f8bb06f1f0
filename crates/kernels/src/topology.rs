//! The processors a process may use, by NUMA node: how many threads to start, and where each of them belongs.
//!
//! Source: `/sys/devices/system` of Linux (Documentation/ABI/stable/sysfs-devices-node, admin-guide/cputopology).
//! Elsewhere, and where nothing can be read there, all processors count as cores of one node.

use std::path::Path;

/// Most NUMA nodes that are told apart; processors of further ones count to the last.
pub const MAX_NODES: usize = 16;

/// Cores of each NUMA node, each core by one of its processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Of each node, one processor of every core, by the system's numbers; no node is empty.
    nodes: Vec<Vec<usize>>,
}

impl Topology {
    /// That of this machine, as far as this process may use it.
    pub fn of_machine() -> Self {
        let n = std::thread::available_parallelism().map_or(1, usize::from);
        let allowed = allowed_processors().unwrap_or_else(|| (0..n).collect());
        Self::read(Path::new("/sys/devices/system"), &allowed)
    }

    /// One of as many cores in each node as `n_cores` says, numbered from 0: for tests.
    pub fn simulated(n_cores: &[usize]) -> Self {
        let mut first = 0;
        let mut node = |&n: &usize| {
            first += n;
            (first - n..first).collect::<Vec<_>>()
        };
        Self::of_nodes(n_cores.iter().map(&mut node).collect())
    }

    /// What a folder laid out like `/sys/devices/system` says of the processors `allowed` (numbers of the system).
    /// What cannot be read counts as one core a processor and one node.
    pub fn read(system: &Path, allowed: &[usize]) -> Self {
        let list = |path: String| parse_list(&std::fs::read_to_string(system.join(path)).ok()?);
        let is_first_of_core = |cpu: usize| {
            let siblings = list(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            siblings
                .is_none_or(|all| all.iter().copied().filter(|it| allowed.contains(it)).min() == Some(cpu))
        };
        let cores: Vec<usize> = allowed.iter().copied().filter(|&cpu| is_first_of_core(cpu)).collect();
        let of_node = |node: usize| {
            let cpus = list(format!("node/node{node}/cpulist")).unwrap_or_default();
            cores.iter().copied().filter(|cpu| cpus.contains(cpu)).collect::<Vec<_>>()
        };
        let nodes: Vec<Vec<usize>> =
            list("node/online".to_owned()).unwrap_or_default().into_iter().map(of_node).collect();
        let n_placed: usize = nodes.iter().map(Vec::len).sum();
        Self::of_nodes(if n_placed == cores.len() { nodes } else { vec![cores] })
    }

    fn of_nodes(mut nodes: Vec<Vec<usize>>) -> Self {
        nodes.retain(|cores| !cores.is_empty());
        while nodes.len() > MAX_NODES {
            let last = nodes.pop().unwrap_or_default();
            nodes[MAX_NODES - 1].extend(last);
        }
        if nodes.is_empty() {
            nodes.push(vec![0]);
        }
        Topology { nodes }
    }

    /// Nodes, at least one.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Cores of all nodes.
    pub fn n_cores(&self) -> usize {
        self.nodes.iter().map(Vec::len).sum()
    }

    /// One processor of every core of node `node`, by the system's numbers.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn cores(&self, node: usize) -> &[usize] {
        &self.nodes[node]
    }

    /// Node and processor of each of `n_threads` threads: nodes in turn, so that each has its share, cores in turn
    /// inside each.
    pub(crate) fn places(&self, n_threads: usize) -> Vec<Place> {
        let n_cores = self.n_cores();
        let longest = self.nodes.iter().map(Vec::len).max().unwrap_or(0);
        let rounds = (0..longest).flat_map(|i| {
            let at = move |(node, cores): (usize, &Vec<usize>)| Some(Place { node, cpu: *cores.get(i)? });
            self.nodes.iter().enumerate().filter_map(at)
        });
        let order: Vec<Place> = rounds.collect();
        (0..n_threads).map(|i| order[i % n_cores]).collect()
    }
}

/// Where a thread belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) cpu: usize,
}

/// Numbers of a list such as `0-3,8,10-11`; `None` where it is no such list.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last.min(first + (1 << 16)));
    }
    Some(all)
}

/// Processors that this thread may run on; `None` where the system does not say.
#[cfg(target_os = "linux")]
fn allowed_processors() -> Option<Vec<usize>> {
    // SAFETY: a set of bits, all of them zero, is one; the call writes no more than its size.
    let (set, failed) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let failed = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (set, failed != 0)
    };
    // SAFETY: every number is below the set's size.
    let is_in = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    (!failed).then(|| (0..libc::CPU_SETSIZE as usize).filter(is_in).collect())
}

#[cfg(not(target_os = "linux"))]
fn allowed_processors() -> Option<Vec<usize>> {
    None
}

/// Keep the calling thread on these processors; whether the system did.
#[cfg(target_os = "linux")]
pub(crate) fn bind_thread(cpus: &[usize]) -> bool {
    // SAFETY: a set of bits, all of them zero, is one; numbers beyond its size are left out; the call reads it only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn bind_thread(_cpus: &[usize]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn two_nodes_with_two_threads_a_core_give_their_cores() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "node/online", "0-1\n");
        write(root.path(), "node/node0/cpulist", "0-2,6-8\n");
        write(root.path(), "node/node1/cpulist", "3-5,9-11\n");
        for cpu in 0..12 {
            let siblings = format!("{},{}\n", cpu % 6, cpu % 6 + 6);
            write(root.path(), &format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings);
        }
        let all: Vec<usize> = (0..12).collect();
        let whole = Topology::read(root.path(), &all);
        assert_eq!(whole.nodes, [[0, 1, 2], [3, 4, 5]]);
        let place = |node, cpu| Place { node, cpu };
        assert_eq!(whole.places(4), [place(0, 0), place(1, 3), place(0, 1), place(1, 4)]);
        assert_eq!(whole.places(7)[6], place(0, 0), "more threads than cores begin anew");
        // A process that may use some processors only: the second of a core counts where the first is not allowed.
        assert_eq!(Topology::read(root.path(), &[1, 7, 9, 10, 4]).nodes, [vec![1], vec![9, 4]]);
    }

    #[test]
    fn what_cannot_be_read_is_one_node() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Topology::read(root.path(), &[2, 5]).nodes, [[2, 5]]);
        write(root.path(), "node/online", "0\n");
        write(root.path(), "node/node0/cpulist", "no list\n");
        assert_eq!(Topology::read(root.path(), &[2, 5]).nodes, [[2, 5]]);
        assert_eq!(Topology::read(root.path(), &[]).nodes, [[0]]);
        let here = Topology::of_machine();
        assert!(here.n_cores() >= 1 && here.n_nodes() >= 1, "{here:?}");
        assert_eq!(Topology::simulated(&[2, 3]).nodes, [vec![0, 1], vec![2, 3, 4]]);
    }
}
