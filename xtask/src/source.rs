//! Rust source with its comments and literals blanked out.
//!
//! Knows just enough of the grammar to tell code from text: nested comments,
//! strings, raw strings, characters and lifetimes.

/// Replaces every comment and literal by blanks; line breaks stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if first == '"' {
            string_len(rest)
        } else if !in_word && (first == 'r' || rest.starts_with("br")) {
            raw_string_len(rest).unwrap_or(0)
        } else if first == '\'' {
            char_len(rest).unwrap_or(0)
        } else {
            0
        };
        if len == 0 {
            code.push(first);
            in_word = first.is_alphanumeric() || first == '_';
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        } else {
            let (text, after) = rest.split_at(len);
            code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            in_word = false;
            rest = after;
        }
    }
    code
}

/// The lines, counted from 1, on which `word` stands by itself.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.lines()
        .enumerate()
        .filter(|(_, line)| line.split(|c| !is_part(c)).any(|token| token == word))
        .map(|(at, _)| at + 1)
        .collect()
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string_len(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let text = body.trim_start_matches('#');
    let hashes = body.len() - text.len();
    let text = text.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let open = rest.len() - text.len();
    Some(
        text.find(&end)
            .map_or(rest.len(), |at| open + at + end.len()),
    )
}

/// A character literal; a lifetime is none.
fn char_len(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next();
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[usize]) {
        assert_eq!(
            lines_with(&code_only(source), "unsafe"),
            expected,
            "{source}"
        );
    }

    #[test]
    fn code_counts() {
        check("fn a() {\n    unsafe { b() }\n}", &[2]);
        check("unsafe impl Send for A {}", &[1]);
        check("fn f<'a>(x: &'a u8) { unsafe {} }", &[1]);
        check("let c = '\"'; unsafe {}", &[1]);
        check("let c = '\\''; unsafe {}", &[1]);
        check("let r = b\"\\\"\"; unsafe {}", &[1]);
        check("let r = r#\"\"\"#; unsafe {}", &[1]);
        check("let r#type = 1; unsafe {}", &[1]);
    }

    #[test]
    fn names_of_lints_do_not() {
        check("#![forbid(unsafe_code)]", &[]);
        check("#[allow(clippy::undocumented_unsafe_blocks)]", &[]);
    }

    #[test]
    fn comments_and_literals_do_not() {
        check("// unsafe\n//! unsafe\n/// unsafe", &[]);
        check("/* unsafe /* unsafe */ unsafe */", &[]);
        check("let s = \"a \\\" unsafe\";", &[]);
        check("let s = r\"\\\" ; let t = \"unsafe\";", &[]);
        check("let s = br##\"unsafe \"# unsafe\"##;", &[]);
        check("let s = \"one\nunsafe\";", &[]);
    }
}
