//! The systemd unit: its own command serves, answers, and ends cleanly when it is told to.

use super::signal::{self, Signal};
use super::world::{World, is_installed, repository, said};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

/// Where the unit expects the binary.
const INSTALLED: &str = "/usr/local/bin/perilune";

fn unit() -> String {
    std::fs::read_to_string(repository().join("packaging/perilune.service")).unwrap()
}

#[test]
fn the_units_command_serves_and_ends_cleanly() {
    let world = World::new();
    let unit = unit();
    let words = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let (program, args) = words.split_once(' ').unwrap();
    assert_eq!(program, INSTALLED);
    let mut command = world.command("perilune");
    command.args(args.split(' ')).env("PERILUNE_DATA", world.home().join("data"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("address  http://")), "it says where it is reached");
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, report, _) = said(
        world.command("perilune").env("PERILUNE_DATA", world.home().join("data")).args(["doctor", "--quick"]),
    );
    assert!(report.contains("a server of Perilune works on the data folder"), "{report}");
    signal::send(&child, Signal::SIGTERM);
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
}

#[test]
fn systemd_reads_the_unit() {
    if !is_installed("systemd-analyze") {
        return println!("systemd-analyze is not installed: the unit is not read by it");
    }
    let world = World::new();
    let file = world.here().join("perilune.service");
    std::fs::write(&file, unit().replace(INSTALLED, env!("CARGO_BIN_EXE_perilune"))).unwrap();
    let (code, out, error) = said(world.command("systemd-analyze").arg("verify").arg(&file));
    let about_it: Vec<&str> = error.lines().filter(|line| line.contains("perilune.service")).collect();
    assert!(about_it.is_empty(), "{code:?} {out} {about_it:#?}");
}

#[test]
fn a_busy_port_costs_no_admin_key() {
    let world = World::new();
    let taken = TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let (code, _, error) = world.perilune(&["serve"]);
    assert!(code == Some(1) && error.contains("--listen"), "{error}");
    let (_, keys, _) = world.perilune(&["keys", "list"]);
    assert!(keys.starts_with("No keys."), "a key was made that nobody saw: {keys}");
    drop(taken);
}
