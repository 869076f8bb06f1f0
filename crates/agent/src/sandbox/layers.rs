//! The walls of the sandbox, one name each, and the policy of which may be missing.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// One wall. Most escapes meet several; each wall is also tested alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A fixed environment, no inherited descriptor, a session of its own.
    CleanStart,
    /// A control group that bounds processes and memory of everything inside together: cgroups(7).
    ControlGroup,
    /// A user namespace, user_namespaces(7): what is root inside owns nothing outside.
    UserNamespace,
    /// A mount namespace, mount_namespaces(7), with a root of its own: system directories read-only, the workspace,
    /// nothing else.
    MountNamespace,
    /// A process namespace, pid_namespaces(7): no process outside can be named, and all inside die with the first.
    PidNamespace,
    /// A network namespace, network_namespaces(7), without a single interface that is up.
    NetworkNamespace,
    /// A namespace for System V IPC and POSIX message queues: ipc_namespaces(7).
    IpcNamespace,
    /// A host name of its own: uts_namespaces(7).
    UtsNamespace,
    /// A control-group tree of its own: cgroup_namespaces(7).
    CgroupNamespace,
    /// No capability held, none obtainable, no privilege gained by executing a file: capabilities(7).
    Capabilities,
    /// Limits per process, setrlimit(2): processor time, memory, processes, file size, open files.
    ResourceLimits,
    /// Landlock, landlock(7): the files that may be read, written and executed; no TCP; signals and abstract sockets
    /// stay inside.
    Landlock,
    /// A list of allowed system calls: seccomp(2).
    Seccomp,
}

impl Layer {
    /// Every layer, in the order in which they are put up.
    pub const ALL: [Layer; 13] = [
        Layer::CleanStart,
        Layer::ControlGroup,
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::NetworkNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
        Layer::Capabilities,
        Layer::ResourceLimits,
        Layer::Landlock,
        Layer::Seccomp,
    ];

    /// Its name as configuration and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Layer::CleanStart => "clean_start",
            Layer::ControlGroup => "control_group",
            Layer::UserNamespace => "user_namespace",
            Layer::MountNamespace => "mount_namespace",
            Layer::PidNamespace => "pid_namespace",
            Layer::NetworkNamespace => "network_namespace",
            Layer::IpcNamespace => "ipc_namespace",
            Layer::UtsNamespace => "uts_namespace",
            Layer::CgroupNamespace => "cgroup_namespace",
            Layer::Capabilities => "capabilities",
            Layer::ResourceLimits => "resource_limits",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which layers are wanted, and which of them may be missing where the kernel refuses them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    wanted: BTreeSet<Layer>,
    may_miss: BTreeSet<Layer>,
}

impl Default for Layers {
    /// All layers; only the control group, which few users may create, can be missing unasked.
    fn default() -> Self {
        Self { wanted: Layer::ALL.into(), may_miss: [Layer::ControlGroup].into() }
    }
}

impl Layers {
    /// These layers and no others, all of them demanded.
    pub fn only(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self { wanted: layers.into_iter().collect(), may_miss: BTreeSet::new() }
    }

    /// The same without `layer`: it is not even tried.
    #[must_use]
    pub fn without(mut self, layer: Layer) -> Self {
        self.wanted.remove(&layer);
        self
    }

    /// The same, but a kernel that refuses `layer` does not stop the run.
    #[must_use]
    pub fn may_miss(mut self, layer: Layer) -> Self {
        self.may_miss.insert(layer);
        self
    }

    /// The same, but a kernel that refuses any layer stops the run.
    #[must_use]
    pub fn demand_all(mut self) -> Self {
        self.may_miss.clear();
        self
    }

    /// Whether `layer` is to be put up.
    pub fn wants(&self, layer: Layer) -> bool {
        self.wanted.contains(&layer)
    }

    /// Whether a run without `layer` is acceptable when the kernel refuses it.
    pub fn tolerates(&self, layer: Layer) -> bool {
        self.may_miss.contains(&layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_configuration_spells() {
        for layer in Layer::ALL {
            assert_eq!(serde_json::to_value(layer).unwrap(), layer.name());
        }
    }

    #[test]
    fn by_default_nothing_but_the_control_group_may_be_missing() {
        let layers = Layers::default();
        for layer in Layer::ALL {
            assert!(layers.wants(layer));
            assert_eq!(layers.tolerates(layer), layer == Layer::ControlGroup, "{layer}");
        }
        assert!(!layers.demand_all().tolerates(Layer::ControlGroup));
    }
}
