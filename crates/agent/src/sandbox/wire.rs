//! What the host and the two stages inside say to each other, over one socket.
//!
//! A frame is a kind byte, a length (u32, little endian) and that many bytes. The host sends `Outer`, then `Plan`,
//! then input; the stages answer with reports. When the host's end closes, everything inside dies.

use super::layers::{Layer, Layers};
use super::limits::Limits;
use super::view::View;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// Longest frame: a plan with its command line, or a piece of input.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 20;

/// Kind and length, before the body.
pub(super) const FRAME_HEAD_BYTES: usize = 5;

/// First argument that makes our binary a sandbox instead of itself.
pub(super) const RESERVED: &str = "__sandbox";

/// Kinds of frames from the host.
pub(super) mod kind {
    pub(in super::super) const OUTER: u8 = b'o';
    pub(in super::super) const PLAN: u8 = b'p';
    pub(in super::super) const INPUT: u8 = b'i';
    pub(in super::super) const END_OF_INPUT: u8 = b'e';
    pub(in super::super) const INTERRUPT: u8 = b's';
    pub(in super::super) const REPORT: u8 = b'r';
}

/// What the outer stage needs: it unshares namespaces and becomes the parent of the first process inside.
#[derive(Serialize, Deserialize)]
pub(super) struct Outer {
    pub(super) layers: Layers,
    /// Files to which the outer stage writes itself to join its control group.
    pub(super) cgroup_procs: Vec<PathBuf>,
}

/// What the inner stage needs: the first process inside.
#[derive(Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) layers: Layers,
    pub(super) limits: Limits,
    pub(super) view: View,
    pub(super) program: Program,
    /// Whether the host is root, whose processes the kernel exempts from the process limit.
    pub(super) root_outside: bool,
    /// Whether a control group bounds the number of processes.
    pub(super) in_cgroup: bool,
}

/// A program to run inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path inside, then the arguments.
    pub argv: Vec<String>,
    /// Environment variables, name and value, beside the fixed few.
    pub env: Vec<(String, String)>,
    /// Working directory, relative to the workspace.
    pub cwd: PathBuf,
    /// Whether input can be written; without it the program reads from `/dev/null`.
    pub takes_input: bool,
}

impl Program {
    /// A program in the workspace's root, without input.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self { argv, env: Vec::new(), cwd: PathBuf::new(), takes_input: false }
    }
}

/// What the stages tell the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(super) enum Report {
    /// A layer could not be put up, and may be missing.
    Missing { layer: Layer, why: String },
    /// A layer could not be put up, so nothing runs.
    Refused { layer: Layer, why: String },
    /// All layers stand, but the program could not be started.
    NotStarted { why: String },
    /// The program runs.
    Started,
    /// The program ended by itself or by a signal.
    Ended { code: Option<i32>, signal: Option<i32>, cpu_ms: u64, peak_rss_bytes: u64 },
    /// More was written to storage than allowed, and everything was killed.
    OverDisk { written_bytes: u64 },
}

/// One frame, ready to be sent.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("bodies are checked against FRAME_BYTES_MAX");
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
    bytes.push(kind);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Read one frame: its kind and body.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; FRAME_HEAD_BYTES];
    from.read_exact(&mut head)?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {len} bytes exceeds {FRAME_BYTES_MAX}")));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// Read one frame that has to be of this kind, and parse it.
pub(super) fn read_message<T: DeserializeOwned>(from: &mut impl Read, kind: u8) -> io::Result<T> {
    let (found, body) = read_frame(from)?;
    if found != kind {
        return Err(io::Error::other(format!(
            "expected a frame `{}`, not `{}`",
            kind as char, found as char
        )));
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Send a report; a host that is gone needs none.
pub(super) fn send_report(to: &mut impl Write, report: &Report) {
    let body = serde_json::to_vec(report).expect("a report has string keys only");
    let _ = to.write_all(&frame(kind::REPORT, &body));
}
