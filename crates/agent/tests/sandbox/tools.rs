//! The tools `shell` and `python`, as an agent calls them.

use crate::host::Host;
use perilune_agent::sandbox::Layers;
use perilune_agent::tools::{
    Arguments, Confined, Limits, OWN_FOLDER, Output, Pdf, Python, ReadFile, Scope, Shell, Tool, Workspace,
};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// An agent's folder with its tools.
pub(crate) struct Hand {
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
    own: TempDir,
    scope: Scope,
    shell: Shell,
    python: Option<Python>,
}

impl Hand {
    fn new(host: &Host) -> Self {
        let (folder, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let workspace = Workspace::open(folder.path()).unwrap().with_own_folder(own.path()).unwrap();
        let confined = Confined { layers: host.all_layers(), ..Confined::default() };
        let interpreter = host.python.clone();
        let python = interpreter.map(|found| Python::new(confined.clone(), found, own.path()).unwrap());
        let mut scope = Scope::new(workspace, Limits::default());
        scope.pdf = pdf(&confined).map(Arc::new);
        Self { runtime: crate::runtime(), folder, own, scope, shell: Shell { confined }, python }
    }

    fn call(&self, tool: &dyn Tool, arguments: serde_json::Value) -> Output {
        let arguments: Arguments = arguments.as_object().unwrap().clone();
        self.runtime.block_on(tool.run(&arguments, &self.scope))
    }

    fn shell(&self, command: &str) -> Output {
        self.call(&self.shell, json!({ "command": command }))
    }

    fn python(&self, code: &str) -> Output {
        self.call(self.python.as_ref().unwrap(), json!({ "code": code }))
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

/// The machine's reader of PDFs.
fn pdf(confined: &Confined) -> Option<Pdf> {
    Pdf::find(&std::env::var_os("PATH").unwrap_or_default(), confined.clone())
}

/// A page that says this, in as few bytes as a reader takes.
fn page_of_pdf(words: &str) -> String {
    let draw = format!("BT /F1 12 Tf 72 720 Td ({words}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{draw}\nendstream", draw.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut text = "%PDF-1.4\n".to_owned();
    let mut places = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        places.push(text.len());
        text += &format!("{} 0 obj\n{object}\nendobj\n", at + 1);
    }
    let table: String = places.iter().map(|place| format!("{place:010} 00000 n \n")).collect();
    let start = text.len();
    text + &format!(
        "xref\n0 6\n0000000000 65535 f \n{table}trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    )
}

type Test = (&'static str, fn(&Hand));

const SHELL: &[Test] = &[
    ("shell works in the workspace and tells its status", |hand| {
        let output = hand.shell("printf 'a\\nb\\n' > f; sort -r f");
        assert_eq!((output.text.as_str(), output.is_done), ("b\na\n", true));
        assert_eq!(hand.file("f"), "a\nb\n");
        let output = hand.shell("echo no; exit 3");
        assert_eq!((output.text.as_str(), output.is_done), ("no\n(exit status 3)", false));
        assert_eq!(hand.shell("true").text, "(no output)");
    }),
    ("shell is killed in its time and refuses what it cannot take", |hand| {
        let output = hand.call(&hand.shell, json!({ "command": "echo begun; sleep 60", "timeout_s": 3 }));
        assert!(
            output.text.starts_with("begun\n(killed with all it started: not done after 3 s)"),
            "{}",
            output.text
        );
        for arguments in
            [json!({ "command": " " }), json!({ "command": "x", "timeout_s": 0 }), json!({ "line": "x" })]
        {
            let output = hand.call(&hand.shell, arguments);
            assert!(output.text.starts_with("error: ") && !output.is_done, "{}", output.text);
        }
    }),
    ("what is hidden is opened, changed and removed by no program", |hand| {
        let at = |name: &str| hand.folder.path().join(name);
        fs::create_dir(at("deep")).unwrap();
        let names = ["keys.env", "deep/keys.env"];
        for name in names {
            fs::write(at(name), "TOKEN=1").unwrap();
        }
        let mut confined = hand.shell.confined.clone();
        confined.hidden = names.map(at).to_vec();
        let shell = Shell { confined };
        for name in names {
            for line in ["cat F", "echo x > F", "chmod 600 F", "mv F a", "rm -f F", "cp F b", "ln F c"] {
                let output = hand.call(&shell, json!({ "command": line.replace('F', name) }));
                assert!(!output.is_done && !output.text.contains("TOKEN"), "{line} {name}: {}", output.text);
                assert_eq!(hand.file(name), "TOKEN=1", "{line}");
            }
        }
        let renamed = hand.call(&shell, json!({ "command": "mv deep other && cat other/keys.env" }));
        assert!(!renamed.is_done && !renamed.text.contains("TOKEN"), "{}", renamed.text);
        assert_eq!(hand.file("other/keys.env"), "TOKEN=1");
        assert!(hand.shell("cat keys.env").text.contains("TOKEN=1"), "without it nothing is hidden");
    }),
    ("shell does not run bare", |hand| {
        let mut confined = hand.shell.confined.clone();
        confined.layers = Layers::default().demand_all();
        confined.binary = "/bin/true".into();
        let output = hand.call(&Shell { confined }, json!({ "command": "echo bare > bare" }));
        assert!(!output.is_done && !hand.folder.path().join("bare").exists(), "{}", output.text);
    }),
];

const PYTHON: &[Test] = &[
    ("python keeps its variables and shows the last expression", |hand| {
        assert_eq!(hand.python("import math\nx = 20").text, "(no output)");
        let output = hand.python("print('seen')\nx + math.isqrt(484)");
        assert_eq!((output.text.as_str(), output.is_done), ("seen\n42", true));
        assert_eq!(hand.python("open('f', 'w').write('kept')").text, "4");
        assert_eq!(hand.file("f"), "kept");
        assert_eq!(
            hand.python("import subprocess\nsubprocess.run(['echo', 'child']).returncode").text,
            "child\n0"
        );
    }),
    ("python's errors name the line, and exit is survived", |hand| {
        let output = hand.python("def f(): raise ValueError('odd')\ny = 1\nf()");
        assert!(!output.is_done && output.text.ends_with("ValueError: odd"), "{}", output.text);
        assert!(output.text.contains("line 1, in f") && !output.text.contains("<string>"), "{}", output.text);
        assert!(hand.python("def").text.contains("SyntaxError"));
        assert!(!hand.python("import sys; sys.exit(2)").is_done);
        assert_eq!(hand.python("y").text, "1");
    }),
    ("python stops in its time and keeps its variables", |hand| {
        hand.python("x = 5");
        let python = hand.python.as_ref().unwrap();
        let output = hand.call(python, json!({ "code": "while True: pass", "timeout_s": 3 }));
        assert!(output.text.ends_with("(stopped after 3 s; variables are kept)"), "{}", output.text);
        assert_eq!(hand.python("x").text, "5");
    }),
    ("python that cannot be stopped is killed, and the loss is told", |hand| {
        hand.python("x = 5\nimport signal");
        let code = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf')\nwhile True: pass";
        let output = hand.call(hand.python.as_ref().unwrap(), json!({ "code": code, "timeout_s": 3 }));
        assert!(
            output.text.starts_with("deaf\n") && output.text.contains("variables and imports are lost"),
            "{}",
            output.text
        );
        assert!(hand.python("x").text.contains("NameError"));
    }),
    ("python that dies is told and begun anew", |hand| {
        let output = hand.python("print('last words', flush=True)\nimport os\nos.kill(os.getpid(), 11)");
        assert!(output.text.starts_with("last words\n(ended by signal 11)"), "{}", output.text);
        assert_eq!(hand.python("1 + 1").text, "2");
    }),
    ("python's artefacts are named and kept", |hand| {
        let output =
            hand.python("open('/artefacts/a.csv', 'w').write('1,2\\n')\nopen('/artefacts/b\\nc', 'w')\nNone");
        assert_eq!(output.artefacts, ["artefacts/a.csv"]);
        assert_eq!(output.text, format!("(kept {OWN_FOLDER}/artefacts/a.csv, 4 bytes)"));
        assert_eq!(fs::read_to_string(hand.own.path().join("artefacts/a.csv")).unwrap(), "1,2\n");
        assert!(hand.python("2").artefacts.is_empty());
    }),
    ("python's threads end with the run", |hand| {
        let beat = "import threading, time\ndef beat():\n    while True:\n        open('beat', 'a').write('x')\n        time.sleep(0.005)\nthreading.Thread(target=beat, daemon=True).start()";
        hand.python(beat);
        let grown = "import os\nsize = lambda: os.path.getsize('beat') if os.path.exists('beat') else 0\nbefore = size()\nwhile size() <= before: time.sleep(0.01)\nsize() > before";
        assert_eq!(hand.python(grown).text, "True", "the thread does nothing");
        hand.runtime.block_on(hand.python.as_ref().unwrap().close());
        let size = || hand.file("beat").len();
        let last = size();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(size(), last);
    }),
    ("python reads nothing of the host", |hand| {
        assert!(
            hand.python(&format!("open({:?}).read()", Path::new("/proc/1/environ"))).text.contains("Error")
        );
        assert!(
            hand.python("import urllib.request as u\nu.urlopen('http://127.0.0.1')").text.contains("Error")
        );
        assert_eq!(hand.python("import os\nsorted(os.listdir('/workspace'))").text, "[]");
    }),
];

const PDF: &[Test] = &[
    ("a PDF is read as text", |hand| {
        fs::write(hand.folder.path().join("paper.pdf"), page_of_pdf("The tides of the moon")).unwrap();
        let output = hand.call(&ReadFile, json!({ "path": "paper.pdf" }));
        assert_eq!((output.text.trim(), output.is_done), ("1: The tides of the moon", true));
    }),
    ("a damaged PDF is told", |hand| {
        fs::write(hand.folder.path().join("paper.pdf"), b"%PDF-1.4\n\xff\xfe nothing").unwrap();
        let output = hand.call(&ReadFile, json!({ "path": "paper.pdf" }));
        assert!(
            output.text.starts_with("error: the PDF cannot be read") && !output.is_done,
            "{}",
            output.text
        );
    }),
];

/// Run every test whose name fits; the number of those that failed.
pub(crate) fn run_all(filter: &str, host: &Host) -> usize {
    if host.python.is_none() {
        println!("SKIPPED    {} tests of python: there is no CPython", PYTHON.len());
    }
    let python = PYTHON.iter().filter(|_| host.python.is_some());
    let has_pdf = pdf(&Confined::default()).is_some();
    if !has_pdf {
        println!("SKIPPED    {} tests of PDFs: there is no pdftotext", PDF.len());
    }
    let pdf = PDF.iter().filter(|_| has_pdf);
    let chosen = SHELL.iter().chain(python).chain(pdf).filter(|(name, _)| name.contains(filter));
    let mut failed = 0;
    for (name, test) in chosen {
        let result = std::panic::catch_unwind(|| test(&Hand::new(host)));
        println!("{}  {name}", if result.is_ok() { "ok        " } else { "FAILED    " });
        failed += usize::from(result.is_err());
    }
    failed
}
