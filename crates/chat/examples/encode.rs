//! Encodes a text file: `encode RANK_FILE TEXT_FILE IDS_FILE [--special]`.
//!
//! Writes the ids as little-endian u32 and prints `SECONDS s, MB_PER_S MB/s, N_IDS ids, LOAD_MS ms to load`,
//! the time of encoding alone, on one thread, the second time: what it is compared with runs warm too.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use perilune_chat::tokenizer::{SpecialText, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let special = args.last().is_some_and(|arg| arg == "--special");
    args.truncate(args.len() - usize::from(special));
    let [rank_file, text_file, ids_file] = args.as_slice() else {
        return Err("usage: encode RANK_FILE TEXT_FILE IDS_FILE [--special]".into());
    };
    let start = Instant::now();
    let tokenizer = Tokenizer::from_rank_file(Path::new(rank_file))?;
    tokenizer.encode_ordinary("the first use makes the character table");
    let load = start.elapsed();
    let text = std::fs::read_to_string(text_file)?;
    let specials = if special { SpecialText::AsTokens } else { SpecialText::AsText };
    tokenizer.encode(&text, specials);
    let start = Instant::now();
    let ids = tokenizer.encode(&text, specials);
    let seconds = start.elapsed().as_secs_f64();
    std::fs::write(ids_file, ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
    let (speed, n_ids, load_ms) = (text.len() as f64 / 1e6 / seconds, ids.len(), load.as_millis());
    writeln!(std::io::stdout(), "{seconds:.6} s, {speed:.1} MB/s, {n_ids} ids, {load_ms} ms to load")?;
    Ok(())
}
