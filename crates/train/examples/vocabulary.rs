//! Makes the rank file of the small model: `cargo run --release -p perilune-train --example vocabulary -- FOLDER`.
#![allow(clippy::print_stdout)]

use perilune_train::data::vocabulary::{SEED, corpus, train_vocabulary};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder that the rank file goes to")?;
    let ranks = train_vocabulary(&corpus(SEED)?)?;
    let path = Path::new(&folder).join("tiktoken.model");
    std::fs::write(&path, ranks)?;
    println!("{} from seed {SEED}", path.display());
    Ok(())
}
