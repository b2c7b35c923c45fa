//! Holds `docs/reference/conformance.md` to the tests: every clause names one, and each that is named exists. Where
//! `OCI_DISTRIBUTION_SPEC` names files with the specification's text, every line of it that asks for something is answered for.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use twinport_oci::Digest;

const PAGE: &str = "docs/reference/conformance.md";
const FAULTS: &str = "\n## Faults that were seeded";
const LINES: &str = include_str!("conformance/lines.txt");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cells of every row of the page's tables whose first cell is the name of a clause, by that name.
fn clauses() -> BTreeMap<String, Vec<String>> {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    // The table of faults names clauses, and makes none.
    let page = page.split(FAULTS).next().unwrap();
    let mut clauses = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<String> =
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let is_clause = cells[0].split_once('-').is_some_and(|(group, number)| {
            group.bytes().all(|byte| byte.is_ascii_uppercase())
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if is_clause {
            let again = clauses.insert(cells[0].clone(), cells.clone());
            assert!(again.is_none(), "{PAGE} has {} twice", cells[0]);
        }
    }
    clauses
}

/// What stands between backticks and names a test, as `file::function`.
fn tests_named(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once(".rs::")).collect()
}

/// Whether a file has a test of this name: a function that is marked as one, or that a macro of tests is given.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let opening = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&opening))
    else {
        return false;
    };
    let marked = lines[..at]
        .iter()
        .rev()
        .take_while(|line| line.starts_with("#["))
        .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    let listed = lines.iter().any(|line| {
        line.strip_suffix([',', ';']).unwrap_or(line).trim_end_matches(')').rsplit(['(', ' ']).next()
            == Some(name)
            && !line.contains("fn ")
    });
    marked || listed
}

fn source(file: &str) -> Option<String> {
    let path =
        if file.contains('/') { format!("{file}.rs") } else { format!("crates/server/tests/v2/{file}.rs") };
    std::fs::read_to_string(root().join(path)).ok()
}

#[test]
fn every_clause_names_a_test_and_every_test_that_is_named_exists() {
    let clauses = clauses();
    assert!(clauses.len() > 80, "{PAGE} has {} clauses", clauses.len());
    let mut wrong = Vec::new();
    for (clause, cells) in &clauses {
        let named: Vec<_> = cells.iter().flat_map(|cell| tests_named(cell)).collect();
        if named.is_empty() {
            wrong.push(format!("{clause} names no test"));
        }
        for (file, name) in named {
            if !source(file).is_some_and(|source| is_test(&source, name)) {
                wrong.push(format!("{clause} names {file}.rs::{name}, which is no test"));
            }
        }
    }
    // The table of faults names tests as well.
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    for (file, name) in tests_named(&page) {
        if !source(file).is_some_and(|source| is_test(&source, name)) {
            wrong.push(format!("{file}.rs::{name} is no test"));
        }
    }
    assert!(wrong.is_empty(), "{PAGE}:\n{}", wrong.join("\n"));
}

#[test]
fn a_test_is_told_from_what_only_looks_like_one() {
    let source = "on_both_databases!(\n    listed,\n    last,\n);\n#[tokio::test]\nasync fn marked() {}\nasync fn listed(site: Site) {}\nfn plain() {}\n";
    assert!(is_test(source, "listed") && is_test(source, "marked"));
    for other in ["plain", "last", "absent"] {
        assert!(!is_test(source, other), "{other}");
    }
}

/// `hash clause` of each line of the specification, at one version or the other.
fn answered() -> BTreeMap<&'static str, &'static str> {
    LINES.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap()).collect()
}

#[test]
fn every_clause_answers_for_a_line_of_the_specification_and_none_for_an_unknown_clause() {
    let clauses = clauses();
    let answering: BTreeSet<&str> =
        answered().into_values().filter(|clause| !["client", "words"].contains(clause)).collect();
    for clause in &answering {
        assert!(clauses.contains_key(*clause), "{PAGE} has no clause {clause}");
    }
    let without: Vec<_> = clauses
        .keys()
        .filter(|clause| !answering.contains(clause.as_str()) && !clause.starts_with("OLD-"))
        .collect();
    assert!(without.is_empty(), "these answer for no line of the specification: {without:?}");
}

#[test]
fn every_line_of_the_specification_that_asks_for_something_is_answered_for() {
    let Some(files) = std::env::var_os("OCI_DISTRIBUTION_SPEC") else {
        println!(
            "skip the specification's own text: OCI_DISTRIBUTION_SPEC names no file (separate several by `:`)"
        );
        return;
    };
    let answered = answered();
    for file in std::env::split_paths(&files) {
        let text = std::fs::read_to_string(&file).unwrap();
        let (mut heading, mut asking) = ("", 0);
        for line in text.lines().map(str::trim) {
            if let Some(title) = line.strip_prefix('#') {
                heading = title.trim_start_matches('#').trim();
            }
            let mut words = line.split(|c: char| !c.is_ascii_alphabetic());
            if !words.any(|word| ["MUST", "SHOULD", "SHALL", "REQUIRED", "RECOMMENDED"].contains(&word)) {
                continue;
            }
            asking += 1;
            let hash = Digest::sha256(format!("{heading}\n{line}").as_bytes()).hex().to_string();
            assert!(
                answered.contains_key(&hash[..10]),
                "{}: nothing answers for this line, {}: [{heading}] {line}",
                file.display(),
                &hash[..10]
            );
        }
        assert!(asking > 100, "{} holds {asking} lines that ask for something", file.display());
    }
}
