//! What a feed's sequences say, tokens that carry no weight in brackets:
//! `cargo run --release -p perilune-train --example show_feed -- FEED TOKENIZER [FIRST] [N]`.
#![allow(clippy::print_stdout)]

use perilune_chat::tokenizer::Tokenizer;
use perilune_train::feed::{self, Draw};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [feed, words, rest @ ..] = arguments.as_slice() else {
        return Err("name a feed and the tokenizer's folder".into());
    };
    let number = |i: usize, otherwise: u64| rest.get(i).map_or(Ok(otherwise), |text| text.parse());
    let (first, n) = (number(0, 0)?, number(1, 1)?);
    let tokenizer = Tokenizer::from_dir(Path::new(words))?;
    let draw = Draw { seed: 1, n_tokens: 1_440, vocab_size: tokenizer.n_vocab(), is_held_out: false };
    let feed = feed::open(feed, draw, Some(Path::new(words)))?;
    let (mut n_tokens, mut n_weighty) = (0, 0);
    for index in first..first + n {
        let sequence = feed.sequence(index);
        n_tokens += sequence.ids.len();
        n_weighty += sequence.loss_weights.iter().filter(|weight| **weight > 0.0).count();
        let mut at = 0;
        println!("--- sequence {index}, {} tokens", sequence.ids.len());
        while at < sequence.ids.len() {
            let is_weighty = sequence.loss_weights[at] > 0.0;
            let n = sequence.loss_weights[at..].iter().take_while(|w| (**w > 0.0) == is_weighty).count();
            let text = tokenizer.decode(&sequence.ids[at..at + n]);
            println!("{}", if is_weighty { text } else { format!("[{text}]") });
            at += n;
        }
    }
    println!("{n_tokens} tokens in {n} sequences, {n_weighty} of them with weight");
    Ok(())
}
