//! What a call in the sandbox costs: `cargo run --release -p perilune-agent --example sandbox_cost [CALLS] [COMMAND]`.
//!
//! Prints wall-clock medians of a shell command run bare, run with every layer, and run with each layer left out.

#![allow(clippy::print_stdout)]

use perilune_agent::sandbox::{Access, Layer, Layers, Program, Sandbox, SandboxError, View, enter_if_asked};
use std::time::Instant;

const CALLS: usize = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    enter_if_asked();
    let calls = std::env::args().nth(1).map_or(Ok(CALLS), |text| text.parse())?;
    let command = std::env::args().nth(2).unwrap_or_else(|| "true".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let workspace = tempfile::tempdir()?;
    let mut sandbox = Sandbox::new(View::new(workspace.path(), Access::ReadWrite));
    let program = Program::new(["/bin/sh", "-c", &command]);
    let outcome = runtime.block_on(sandbox.run(&program, &[], &mut |_| ()))?;
    println!("{:?}, missing {:?}\n{}", outcome.end, outcome.missing, outcome.output.text());

    let bare = median(calls, || {
        Ok(std::process::Command::new("/bin/sh").args(["-c", &command]).output().map(drop)?)
    })?;
    println!("{bare:8.2} ms  bare /bin/sh");
    let mut time = |label: &str, layers: Layers| -> Result<(), SandboxError> {
        sandbox.layers = layers;
        let ms = median(calls, || runtime.block_on(sandbox.run(&program, &[], &mut |_| ())).map(drop))?;
        println!("{ms:8.2} ms  {label}");
        Ok(())
    };
    time("all layers", Layers::default())?;
    for layer in Layer::ALL {
        if let Err(error) = time(&format!("without {layer}"), Layers::default().without(layer)) {
            println!("       - ms  without {layer}: {error}");
        }
    }
    Ok(())
}

/// Median wall-clock time of one call, ms.
fn median(calls: usize, mut call: impl FnMut() -> Result<(), SandboxError>) -> Result<f64, SandboxError> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begin = Instant::now();
        call()?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[calls / 2])
}
