//! The processor: which instruction set the kernels use here, and the threads they run on.

use crate::pool::{Binding, Pool};
use crate::topology::Topology;

/// A set of kernel versions, by the instruction set they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The scalar reference.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// The same with AMX tiles of 8-bit integers, on Linux.
    Amx,
    /// 64-bit Arm with NEON.
    Neon,
    /// The same with its dot products of 8-bit codes.
    NeonDotprod,
}

impl Isa {
    /// Every set this build holds, plainest first.
    pub const ALL: [Isa; 6] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx, Isa::Neon, Isa::NeonDotprod];

    /// The name used by flags and reports: `scalar`, `avx2`, `avx512-vnni`, `amx-int8`, `neon`, `neon-dotprod`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512-vnni",
            Isa::Amx => "amx-int8",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
        }
    }

    /// The set of that [`Isa::name`], `None` for any other word.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this processor can run it.
    pub fn is_present(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_present()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512.is_present() && crate::x86::amx::is_granted(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => Isa::Neon.is_present() && std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Whether the agreement suite of this version has been run on a processor that has it, for Arm an emulated one
    /// (see `docs/log.md`); a set that never ran is not chosen by default.
    pub fn is_verified(self) -> bool {
        match self {
            Isa::Scalar | Isa::Avx2 | Isa::Avx512 | Isa::Amx | Isa::Neon | Isa::NeonDotprod => true,
        }
    }

    /// The widest verified set that this processor has.
    pub fn best() -> Isa {
        let usable = |isa: &Isa| isa.is_present() && isa.is_verified();
        Isa::ALL.into_iter().rev().find(usable).unwrap_or(Isa::Scalar)
    }
}

/// Kernels of one instruction set on one pool of threads: what every operation runs on.
pub struct Cpu {
    isa: Isa,
    pool: Pool,
}

impl Cpu {
    /// The best verified kernels on `n_threads` threads, or as many as [`Pool::new`] gives.
    pub fn new(n_threads: usize) -> Self {
        Cpu { isa: Isa::best(), pool: Pool::new(n_threads) }
    }

    /// Kernels of a named set on `n_threads` threads; `None` where this processor lacks it.
    pub fn with_isa(isa: Isa, n_threads: usize) -> Option<Self> {
        isa.is_present().then(|| Cpu { isa, pool: Pool::new(n_threads) })
    }

    /// The same on the nodes of `topology`, each thread bound as asked; `None` where this processor lacks the set.
    pub fn on(isa: Isa, topology: Topology, binding: Binding, n_threads: usize) -> Option<Self> {
        isa.is_present().then(|| Cpu { isa, pool: Pool::on(topology, binding, n_threads) })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads in use.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Threads that pay: the cores this process may use, a second thread of a core not counted, and no more than its
    /// share of the machine's time. At least 1.
    pub fn n_available() -> usize {
        let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
        Topology::of_machine().n_cores().clamp(1, n_processors)
    }
}

/// Call one of a function's versions: `$cpu.isa()` picks among `reference::f`, `x86::avx2::f`, `arm::neon::f` and the rest.
macro_rules! dispatch {
    ($isa:expr, $f:ident ( $($arg:expr),* $(,)? )) => {
        match $isa {
            $crate::cpu::Isa::Scalar => $crate::reference::$f($($arg),*),
            // SAFETY: a `Cpu` of this set exists only where `Isa::is_present` found the features.
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Isa::Avx2 => unsafe { $crate::x86::avx2::$f($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Isa::Avx512 => unsafe { $crate::x86::avx512::$f($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Isa::Amx => unsafe { $crate::x86::amx::$f($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::Isa::Neon => unsafe { $crate::arm::neon::$f($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            $crate::cpu::Isa::NeonDotprod => unsafe { $crate::arm::dotprod::$f($($arg),*) },
            // Sets of other processors, of which there is no `Cpu` here.
            _ => $crate::reference::$f($($arg),*),
        }
    };
}
pub(crate) use dispatch;
