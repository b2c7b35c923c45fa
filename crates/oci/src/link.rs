//! The `Link` header that pages of a listing are chained with (RFC 8288).

/// The header value that names the next page. `path_and_query` is a URL as sent; bytes that may not stand inside
/// the angle brackets are percent-encoded, so that no cursor can end the link or the header early.
pub fn next_link(path_and_query: &str) -> String {
    let mut link = String::with_capacity(path_and_query.len() + 15);
    link.push('<');
    for byte in path_and_query.bytes() {
        match byte {
            b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                link.push_str(&format!("%{byte:02X}"));
            }
            _ => link.push(char::from(byte)),
        }
    }
    link.push_str(">; rel=\"next\"");
    link
}

/// The target of the first link whose relation is `next`, as written: relative to the URL of the answer, and on
/// another registry's word only. `None` when there is none or the header is malformed before it.
pub fn parse_next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, parameters) = rest.strip_prefix('<')?.split_once('>')?;
        let (is_next, after) = read_parameters(parameters)?;
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

/// Reads `; name=value` pairs up to the comma that ends the link. Only the first `rel` counts.
fn read_parameters(mut rest: &str) -> Option<(bool, &str)> {
    let mut relation: Option<bool> = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(after) = rest.strip_prefix(';') else {
            let ended = rest.is_empty() || rest.starts_with(',');
            return ended.then_some((relation.unwrap_or(false), rest));
        };
        let name_end = after.find(['=', ';', ',']).unwrap_or(after.len());
        let (name, after) = after.split_at(name_end);
        let (value, after) = match after.strip_prefix('=') {
            Some(value) => read_value(value.trim_start_matches([' ', '\t']))?,
            None => ("", after),
        };
        if relation.is_none() && name.trim_matches([' ', '\t']).eq_ignore_ascii_case("rel") {
            relation = Some(value.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next")));
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows it. Escapes inside quotes are skipped over, not undone: no
/// relation needs one.
fn read_value(text: &str) -> Option<(&str, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        return Some(text.split_at(end));
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&quoted[..at], &quoted[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{next_link, parse_next_link};

    #[test]
    fn a_link_is_written_as_registries_write_it() {
        let link = next_link("/v2/a/b/tags/list?n=2&last=v1.0");
        assert_eq!(link, "</v2/a/b/tags/list?n=2&last=v1.0>; rel=\"next\"");
        assert_eq!(parse_next_link(&link), Some("/v2/a/b/tags/list?n=2&last=v1.0"));
    }

    #[test]
    fn a_cursor_can_end_neither_the_link_nor_the_header() {
        let link = next_link("/v2/_catalog?last=a>\r\nSet-Cookie: x=é\0 \"");
        assert_eq!(link, "</v2/_catalog?last=a%3E%0D%0ASet-Cookie:%20x=%C3%A9%00%20%22>; rel=\"next\"");
    }

    #[test]
    fn the_next_link_is_found_among_others() {
        for (header, next) in [
            ("<a>; rel=next", Some("a")),
            ("<a>;rel=\"next\"", Some("a")),
            (" < a > ; REL = NEXT ", Some(" a ")),
            ("<a>; rel=prev, <b>; rel=next", Some("b")),
            ("<a>; title=\"x, <c>; rel=next\"; rel=first,<b>; rel=\"last next\"", Some("b")),
            ("<a>; title=\"\\\"; rel=next\"; rel=prev", None),
            ("<a,b;c>; rel=next", Some("a,b;c")),
            ("<a>; rel=prev; rel=next", None),
            ("<a>", None),
            ("<a>; rel", None),
            ("<a>; next", None),
            ("a; rel=next", None),
            ("<a; rel=next", None),
            ("<a>; rel=\"next", None),
            ("<a> rel=next", None),
            ("", None),
        ] {
            assert_eq!(parse_next_link(header), next, "{header}");
        }
    }
}
