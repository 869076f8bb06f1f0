//! Recording: a command at a terminal, its lines in time, and the picture of them.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;
use xtask::record::{Film, Piece, Size, draw, record};

const SIZE: Size = Size { columns: 20, rows: 3 };

fn film(pieces: &[(u64, &str)]) -> Film {
    let piece = |(ms, text): &(u64, &str)| Piece {
        at: Duration::from_millis(*ms),
        bytes: text.replace('\n', "\r\n").into_bytes(),
    };
    Film::new(&pieces.iter().map(piece).collect::<Vec<_>>(), SIZE).unwrap()
}

/// (row, from, until, text) of every version of a line.
fn told(film: &Film) -> Vec<(u16, u128, Option<u128>, String)> {
    let text = |line: &xtask::record::Line| line.spans.iter().map(|span| span.text.as_str()).collect();
    let told = film
        .lines
        .iter()
        .map(|line| (line.row, line.from.as_millis(), line.until.map(|until| until.as_millis()), text(line)));
    told.collect()
}

#[test]
fn a_command_sees_a_terminal_of_the_size_that_was_asked_for() {
    let mut command = Command::new("sh");
    command.args(["-c", "test -t 0 && test -t 1 && test -t 2 && stty size; exit 7"]);
    let (pieces, status) = record(command, SIZE).unwrap();
    let text: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
    assert_eq!((String::from_utf8(text).unwrap().as_str(), status.code()), ("3 20\r\n", Some(7)));
}

#[test]
fn lines_come_change_and_leave_the_screen() {
    let film = film(&[(0, "one\n"), (10, "two"), (500, "\rTWO\n"), (900, "three\nfour\n")]);
    let expected = [
        (0, 0, None, "one"),
        (1, 0, Some(500), "two"),
        (1, 500, None, "TWO"),
        (2, 900, None, "three"),
        (3, 900, None, "four"),
    ];
    let expected: Vec<_> =
        expected.map(|(row, from, until, text)| (row, from, until, text.to_owned())).into();
    assert_eq!(told(&film), expected);
    assert_eq!(film.scrolls, [(Duration::from_millis(900), 2)]);
}

#[test]
fn a_bar_that_is_cleared_leaves_nothing() {
    let film = film(&[(0, "bar ###"), (100, "\r\x1b[2Kdone"), (200, "\r\x1b[2K")]);
    assert_eq!(
        told(&film),
        [(0, 0, Some(100), "bar ###".to_owned()), (0, 100, Some(200), "done".to_owned())]
    );
}

#[test]
fn the_picture_rests_on_the_last_screen_and_is_xml() {
    let film = film(&[(0, "<a> & \x1b[31mred\x1b[0m\n"), (400, "b\nc\nd\n"), (800, "\x1b[2me\x1b[0m")]);
    let svg = draw(&film, "what it <shows>");
    for part in [
        "<title>what it &lt;shows&gt;</title>",
        ">&lt;a&gt; &amp;</text>",
        "fill=\"#e57b85\">red</text>",
        "class=\"d\">e</text>",
        "@keyframes s{0%{transform:none}50.000%{transform:translateY(-38px)}}",
        ".film{transform:translateY(-38px);animation:s 0.80s step-end}",
        "<g style=\"animation:h 0.40s\">",
    ] {
        assert!(svg.contains(part), "{part} is missing in\n{svg}");
    }
    let open = svg.matches("<g").count() + svg.matches("<svg").count() + svg.matches("<text").count();
    let closed = svg.matches("</g>").count() + svg.matches("</svg>").count() + svg.matches("</text>").count();
    assert_eq!(open, closed);
}
