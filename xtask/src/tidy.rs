//! `tidy`: the rules of the style guide that a program can check.
//!
//! Owns the list of crate arrows, of places where unsafe code may stand, and
//! the hash that ties the layout code to docs/format.md. Also runs as a test.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{code_only, lines_with};

/// Which crates of ours a crate may name in `[dependencies]`.
const ARROWS: &[(&str, &[&str])] = &[
    ("emdb-format", &[]),
    ("emdb-crypto", &[]),
    ("emdb-index", &[]),
    ("emdb-journal", &["emdb-format", "emdb-crypto"]),
    (
        "emdb-engine",
        &["emdb-format", "emdb-crypto", "emdb-journal", "emdb-index"],
    ),
    (
        "emdb",
        &["emdb-engine", "emdb-format", "emdb-journal", "emdb-index"],
    ),
    ("emdb-cli", &["emdb"]),
];

/// Where unsafe code may stand, besides `UNSAFE_FOLDERS`. A slash at the end means everything below.
const UNSAFE_PLACES: &[&str] = &[
    "crates/emdb-journal/src/sys.rs",
    "crates/emdb-journal/src/sys/",
    "crates/emdb-journal/src/extent.rs",
    "crates/emdb-journal/src/extent/",
    "crates/emdb-journal/src/map.rs",
    "crates/emdb-index/src/hash/",
    "crates/emdb-index/src/ordered/directory.rs",
    "crates/emdb-index/src/ordered/directory/",
];
const UNSAFE_FOLDERS: &[&str] = &["tests", "benches", "fuzz", "examples"];

/// Folders that hold nothing of ours.
const FOREIGN_FOLDERS: &[&str] = &["target", ".git", "corpus", "artifacts"];
const TEXT_EXTENSIONS: &[&str] = &["rs", "md", "toml", "yml", "yaml", "sh", "txt"];
/// Split, so that this file passes its own check.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!(":\\Us", "ers\\"),
];

const LAYOUT_FOLDER: &str = "crates/emdb-format/src/";
const LAYOUT_SPEC: &str = "docs/format.md";
const LAYOUT_MARK: &str = "layout-hash: ";

const LARGEST_SHOWN: usize = 10;
/// Past this many lines outside tests it is time to ask which second noun moved in.
const LINES_WARNED: usize = 500;

/// Checks everything; the error lists every finding.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let report = check(root)?;
    println!("largest files (lines without tests):");
    for (lines, path) in report.sizes.iter().take(LARGEST_SHOWN) {
        println!("{lines:>6}  {path}");
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    if report.findings.is_empty() {
        return Ok(());
    }
    Err(format!(
        "tidy found {}:\n  {}\nto reproduce: cargo xtask tidy",
        report.findings.len(),
        report.findings.join("\n  ")
    ))
}

/// Records the hash of the layout code in the specification.
pub(crate) fn bless(root: &Path) -> Result<(), String> {
    let hash = layout_hash(&files(root)?);
    let path = root.join(LAYOUT_SPEC);
    let spec = fs::read_to_string(&path).map_err(|error| format!("{LAYOUT_SPEC}: {error}"))?;
    let recorded = recorded_hash(&spec)
        .ok_or_else(|| format!("{LAYOUT_SPEC} has no line `{LAYOUT_MARK}<hex>`"))?;
    let old = format!("{LAYOUT_MARK}{recorded}");
    let blessed = spec.replacen(&old, &format!("{LAYOUT_MARK}{hash}"), 1);
    fs::write(&path, blessed).map_err(|error| format!("{LAYOUT_SPEC}: {error}"))?;
    println!("{LAYOUT_SPEC}: {recorded} -> {hash}");
    Ok(())
}

#[derive(Default)]
struct Report {
    findings: Vec<String>,
    warnings: Vec<String>,
    /// Lines outside tests, largest first.
    sizes: Vec<(usize, String)>,
}

/// A text file of the workspace; `path` has forward slashes on every system.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

fn check(root: &Path) -> Result<Report, String> {
    let files = files(root)?;
    let mut report = Report::default();
    for file in &files {
        check_machine_paths(file, &mut report);
        if file.is_rust() {
            check_opening(file, &mut report);
            check_ascii(file, &mut report);
            check_unsafe(file, &mut report);
            report
                .sizes
                .push((lines_without_tests(file), file.path.clone()));
        }
        if let Some(name) = crate_of_manifest(&file.path) {
            check_arrows(name, file, &mut report);
        }
    }
    check_layout(&files, &mut report);
    report.sizes.sort_by(|a, b| b.cmp(a));
    for (lines, path) in &report.sizes {
        if *lines > LINES_WARNED {
            report.warnings.push(format!(
                "{path}: {lines} lines; which second noun moved in?"
            ));
        }
    }
    Ok(report)
}

fn check_opening(file: &File, report: &mut Report) {
    let opening = file
        .text
        .lines()
        .find(|line| !line.starts_with("#!") && !line.trim().is_empty());
    if !opening.is_some_and(|line| line.starts_with("//!")) {
        report.findings.push(format!(
            "{}: opens without `//!` saying what it owns",
            file.path
        ));
    }
}

fn check_ascii(file: &File, report: &mut Report) {
    for (at, line) in file.text.lines().enumerate() {
        if !line.is_ascii() {
            let place = format!("{}:{}", file.path, at + 1);
            report.findings.push(format!("{place}: not ASCII"));
        }
    }
}

fn check_unsafe(file: &File, report: &mut Report) {
    let is_named = UNSAFE_PLACES
        .iter()
        .any(|place| file.path == *place || place.ends_with('/') && file.path.starts_with(place));
    let in_folder = file
        .path
        .split('/')
        .any(|part| UNSAFE_FOLDERS.contains(&part));
    if is_named || in_folder {
        return;
    }
    for line in lines_with(&code_only(&file.text), "unsafe") {
        report.findings.push(format!(
            "{}:{line}: unsafe code outside the places named in xtask/src/tidy.rs",
            file.path
        ));
    }
}

fn check_machine_paths(file: &File, report: &mut Report) {
    for (at, line) in file.text.lines().enumerate() {
        if MACHINE_PATHS.iter().any(|path| names_path(line, path)) {
            let place = format!("{}:{}", file.path, at + 1);
            report
                .findings
                .push(format!("{place}: a path of somebody's machine"));
        }
    }
}

/// Whether `path` begins in `line`; the tail of a longer path or of an address does not count.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back());
        path.starts_with(':')
            || !before.is_some_and(|c| c.is_alphanumeric() || "_-.~>}".contains(c))
    })
}

fn check_arrows(name: &str, manifest: &File, report: &mut Report) {
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        report.findings.push(format!(
            "{}: new crate; add its arrows to xtask/src/tidy.rs and docs/architecture.md",
            manifest.path
        ));
        return;
    };
    for to in dependencies(&manifest.text) {
        if to.starts_with("emdb") && !allowed.contains(&to.as_str()) {
            report.findings.push(format!(
                "{}: {name} -> {to} is not an arrow of the design",
                manifest.path
            ));
        }
    }
}

fn check_layout(files: &[File], report: &mut Report) {
    let spec = files.iter().find(|file| file.path == LAYOUT_SPEC);
    let Some(recorded) = spec.and_then(|spec| recorded_hash(&spec.text)) else {
        report.warnings.push(format!(
            "{LAYOUT_SPEC} has no line `{LAYOUT_MARK}<hex>`: the layout is not tied to it"
        ));
        return;
    };
    let actual = layout_hash(files);
    if recorded != actual {
        report.findings.push(format!(
            "{LAYOUT_SPEC}: the layout code changed (hash {actual}, recorded {recorded}); \
             if no byte on disk changed, or the page says what did, run `cargo xtask tidy --bless`"
        ));
    }
}

/// The crate whose manifest this is, if it is one of ours.
fn crate_of_manifest(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?
        .strip_suffix("/Cargo.toml")
        .filter(|name| !name.contains('/'))
}

/// The names under `[dependencies]`, also of one target; renamed ones under their real name.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_table = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let (_, last) = header.rsplit_once("'.").unwrap_or(("", header));
            in_table = last == "dependencies";
            names.extend(last.strip_prefix("dependencies.").map(str::to_owned));
        } else if in_table && !line.starts_with('#') {
            let key: &str = line.split(['=', '.', ' ']).next().unwrap_or_default();
            let real = line
                .split_once("package = \"")
                .and_then(|(_, rest)| rest.split('"').next());
            names.push(real.unwrap_or(key).to_owned());
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn recorded_hash(spec: &str) -> Option<&str> {
    let (_, rest) = spec.split_once(LAYOUT_MARK)?;
    let end = rest
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(rest.len());
    rest.get(..end).filter(|hash| !hash.is_empty())
}

/// FNV-1a over the layout code in the order of names. Line ends do not count: checkouts differ in them.
fn layout_hash(files: &[File]) -> String {
    let hash = files
        .iter()
        .filter(|file| file.path.starts_with(LAYOUT_FOLDER) && file.is_rust())
        .filter(|file| !is_test(&file.path))
        .flat_map(|file| file.text.bytes())
        .filter(|byte| *byte != b'\r')
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests")
}

fn lines_without_tests(file: &File) -> usize {
    if is_test(&file.path) {
        return 0;
    }
    let tests = file.text.find("\n#[cfg(test)]\nmod tests {");
    let code = tests.and_then(|at| file.text.get(..at));
    code.unwrap_or(&file.text).lines().count()
}

/// Every text file of the workspace, in the order of names.
fn files(root: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let shown = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(shown)? {
            let entry = entry.map_err(shown)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().map_err(shown)?.is_dir() {
                if !FOREIGN_FOLDERS.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if is_text(&path) {
                // A file that vanished meanwhile, or holds other bytes, is not ours to judge.
                if let Ok(text) = fs::read_to_string(&path) {
                    let path = relative(root, &path);
                    files.push(File { path, text });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(extension) => TEXT_EXTENSIONS.iter().any(|known| extension == *known),
        None => {
            let folder = path.parent().and_then(Path::file_name);
            folder.is_some_and(|name| name == ".ci")
        }
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(root).map(PathBuf::from);
    let parts = parts.unwrap_or_else(|_| path.to_path_buf());
    parts
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        if let Err(message) = run(&crate::root()) {
            panic!("{message}");
        }
    }

    fn findings(path: &str, text: &str) -> usize {
        let mut report = Report::default();
        let (path, text) = (path.to_owned(), text.to_owned());
        let file = File { path, text };
        check_machine_paths(&file, &mut report);
        if file.is_rust() {
            check_opening(&file, &mut report);
            check_ascii(&file, &mut report);
            check_unsafe(&file, &mut report);
        }
        if let Some(name) = crate_of_manifest(&file.path) {
            check_arrows(name, &file, &mut report);
        }
        report.findings.len()
    }

    #[test]
    fn a_file_must_say_what_it_owns() {
        assert_eq!(findings("a.rs", "//! Owns a.\nfn a() {}"), 0);
        assert_eq!(findings("a.rs", "#![no_main]\n\n//! Owns a."), 0);
        assert_eq!(findings("a.rs", "fn a() {}"), 1);
        assert_eq!(findings("a.rs", ""), 1);
    }

    #[test]
    fn sources_are_ascii() {
        assert_eq!(findings("a.rs", "//! caf\u{e9}"), 1);
        assert_eq!(findings("a.md", "caf\u{e9}"), 0);
    }

    #[test]
    fn unsafe_code_stands_in_named_places_only() {
        let text = "//! Owns a.\nunsafe fn a() {}";
        assert_eq!(findings("crates/emdb-format/src/a.rs", text), 1);
        assert_eq!(findings("crates/emdb-index/src/hash.rs", text), 1);
        assert_eq!(findings("crates/emdb-index/src/hash/shard.rs", text), 0);
        assert_eq!(findings("crates/emdb-journal/src/sys.rs", text), 0);
        assert_eq!(findings("crates/emdb-journal/src/sys/unix.rs", text), 0);
        assert_eq!(findings("crates/emdb-format/tests/a.rs", text), 0);
    }

    #[test]
    fn paths_of_a_machine_are_found_addresses_are_not() {
        assert_eq!(findings("a.md", concat!("see /ho", "me/ann/x")), 1);
        assert_eq!(findings("a.md", concat!("(C:\\Us", "ers\\ann)")), 1);
        assert_eq!(findings("a.md", concat!("example.org/ho", "me/ann")), 0);
        assert_eq!(findings("a.md", concat!("frame/wo", "rk")), 0);
    }

    #[test]
    fn arrows_point_down() {
        let path = "crates/emdb-journal/Cargo.toml";
        let check = |text| findings(path, text);
        assert_eq!(check("[dependencies]\nemdb-format.workspace = true"), 0);
        assert_eq!(check("[dependencies]\nemdb-index = { path = \"x\" }"), 1);
        assert_eq!(check("[dependencies.emdb-engine]\npath = \"x\""), 1);
        assert_eq!(check("[dependencies]\nx = { package = \"emdb-index\" }"), 1);
        assert_eq!(check("[target.'cfg(unix)'.dependencies]\nemdb = \"1\""), 1);
        assert_eq!(check("[dev-dependencies]\nemdb-index = \"1\""), 0);
        assert_eq!(findings("crates/emdb-new/Cargo.toml", ""), 1);
    }

    #[test]
    fn the_layout_is_tied_to_its_specification() {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let code = file("crates/emdb-format/src/a.rs", "ab");
        let test = file("crates/emdb-format/src/a/tests.rs", "c");
        let windows = file("crates/emdb-format/src/a.rs", "a\rb");
        let hash = layout_hash(&[code, test]);
        assert_eq!(hash, "089c4407b545986a");
        assert_eq!(hash, layout_hash(&[windows]));
        let spec = format!("text\n<!-- layout-hash: {hash} -->\n");
        assert_eq!(recorded_hash(&spec), Some(hash.as_str()));
        assert_eq!(recorded_hash("layout-hash: none yet"), None);
    }
}
