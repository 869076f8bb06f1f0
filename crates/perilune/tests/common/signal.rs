//! Signals to a child, without the program `kill`, which a bare system lacks.

pub(crate) use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::process::Child;

pub(crate) fn send(child: &Child, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}
