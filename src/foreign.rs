//! Makes text and addresses from outside fit for messages: one line, of a bounded length, without
//! control characters, passwords and signatures.
//! Vocabulary: names no stage.

use std::fmt;

use url::Url;

/// The length of the longest foreign text that a message quotes, in characters.
const LONGEST: usize = 500;
/// The number of bytes of a foreign text that are looked at.
const LOOKED_AT: usize = 64 << 10;

/// An address for messages: without user name, password, query and fragment, each of which may hold
/// a secret.
///
/// Errors, events and logs hold addresses only in this type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Removes the parts of an address that may hold a secret.
    pub fn of(address: &str) -> Self {
        let Ok(mut url) = address.parse::<Url>() else {
            // Even if the text is not a URL, the part before a `?` or `#` holds no signature.
            let end = address.find(['?', '#']).unwrap_or(address.len());
            return Self(shortened(&printable(&without_user(&address[..end]))));
        };
        // These calls fail for URLs without a host, which have no user either.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        Self(shortened(&printable(url.as_str())))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the output of another program as one line of at most 500 characters: markup without its
/// tags, addresses as [`PublicUrl`]s, and no control characters.
pub fn plain_text(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    let text = if is_markup(text) { without_markup(text) } else { text.to_owned() };
    shortened(&with_public_urls(&printable(&text)))
}

/// Returns the text of the first element named `name` in an XML document, or `None` if it has no
/// text of its own.
pub fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// Removes the text before the last `@`, except for an `@` that begins a digest.
fn without_user(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let is_digest = |at: usize| {
        let algorithm = rest[at + 1..].split(':').next().unwrap_or_default();
        ["sha256", "sha384", "sha512"].contains(&algorithm)
    };
    let user = rest.rmatch_indices('@').map(|(at, _)| at).find(|at| !is_digest(*at));
    scheme + user.map_or(rest, |at| &rest[at + 1..])
}

/// Returns the text as one line, without control characters and without invisible characters, such
/// as those that change the direction of text.
fn printable(text: &str) -> String {
    let is_unseen = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    let text: String = text
        .chars()
        .filter(|c| !is_unseen(*c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Replaces every address in a text by a [`PublicUrl`]; `?…` stands for a query or a fragment.
pub fn with_public_urls(text: &str) -> String {
    let (mut found, mut rest) = (String::new(), text);
    while let Some(colon) = rest.find("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let begin = rest[..colon]
            .rfind(|c| !is_scheme(c))
            .map_or(0, |before| before + rest[before..].chars().next().map_or(1, char::len_utf8));
        let is_end = |c: char| c.is_whitespace() || "\"'`<>(){}|,;".contains(c);
        let end = rest[colon..].find(is_end).map_or(rest.len(), |length| colon + length);
        // Punctuation at the end belongs to the sentence, not to the address.
        let address = rest[begin..end].trim_end_matches([':', '.']);
        found += &rest[..begin];
        found += &PublicUrl::of(address).to_string();
        if address.contains(['?', '#']) {
            found += "?…";
        }
        rest = &rest[begin + address.len()..];
    }
    found + rest
}

fn is_markup(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let second = text.strip_prefix('<').and_then(|rest| rest.chars().next());
    second.is_some_and(|c| c.is_ascii_alphabetic() || "!?".contains(c)) && text.contains('>')
}

/// Returns the text between the tags of an HTML page; for an object storage's XML, its code and
/// message.
fn without_markup(text: &str) -> String {
    let said = ["Code", "Message"].into_iter().filter_map(|name| element(text, name));
    let said = said.collect::<Vec<_>>().join(": ");
    if !said.is_empty() {
        return with_characters(&said);
    }
    let (mut found, mut rest) = (String::new(), text);
    while let Some(begin) = rest.find('<') {
        found += &rest[..begin];
        found.push(' ');
        let lower = rest[begin..].get(..8).unwrap_or(&rest[begin..]).to_ascii_lowercase();
        // The contents of these elements are not text.
        let end = [("<!--", "-->"), ("<script", "</script"), ("<style", "</style")]
            .into_iter()
            .find(|(open, _)| lower.starts_with(open))
            .map_or(">", |(_, close)| close);
        rest = match find_ignoring_case(&rest[begin..], end) {
            Some(at) if end.starts_with("</") => &rest[begin + at + 2..],
            Some(at) => {
                let after = &rest[begin + at + end.len()..];
                found.push(' ');
                after
            }
            None => "",
        };
        // If this was a closing tag, only `</` was skipped: skip its name and bracket too.
        if end.starts_with("</") {
            rest = rest.split_once('>').map_or("", |(_, after)| after);
        }
    }
    found += rest;
    with_characters(&found)
}

fn find_ignoring_case(text: &str, wanted: &str) -> Option<usize> {
    let bytes = text.as_bytes().windows(wanted.len());
    bytes.into_iter().position(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Replaces the most frequent character references. `&amp;` comes last, so that its result is not
/// read as the beginning of another reference.
fn with_characters(text: &str) -> String {
    let references = [
        ("&nbsp;", " "),
        ("&lt;", "("),
        ("&gt;", ")"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&amp;", "&"),
    ];
    references.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_no_secrets() {
        for (address, expected) in [
            ("https://reg/v2/a/blobs/uploads/1?sig=S#S", "https://reg/v2/a/blobs/uploads/1"),
            ("https://u:S@reg:5000/v2/", "https://reg:5000/v2/"),
            ("https://S@reg/", "https://reg/"),
            ("http://[::1]:5000/a?S", "http://[::1]:5000/a"),
            ("s3://u:S@bucket/prefix?S", "s3://bucket/prefix"),
            ("git!https://u:S@host/x", "git!https://host/x"),
            ("git://u:S@host/x!main", "git://host/x!main"),
            ("file:///srv/x?S", "file:///srv/x"),
            ("/v2/x?S", "/v2/x"),
            ("http://u:S@?S", "http://"),
            ("no address\n\u{1b}[2J", "no address [2J"),
            ("", ""),
        ] {
            assert_eq!(PublicUrl::of(address).to_string(), expected, "{address}");
        }
    }

    #[test]
    fn addresses_in_messages_have_no_secrets() {
        for (output, shown) in [
            ("error: no such file", "error: no such file"),
            (
                "fatal: unable to access 'https://user:PASSWORD@host/x/': refused",
                "fatal: unable to access 'https://host/x/': refused",
            ),
            (
                "while fetching git+https://token@host/a?ref=main",
                "while fetching git+https://host/a?…",
            ),
        ] {
            assert_eq!(with_public_urls(output), shown);
        }
    }

    #[test]
    fn foreign_text_is_plain() {
        for (text, expected) in [
            ("it is denied", "it is denied"),
            (" two\r\n lines\t", "two lines"),
            ("\u{1b}[2J\u{7}\u{202e}x", "[2J x"),
            ("a < b and c > d", "a < b and c > d"),
            ("<nil> it is", "it is"),
            (
                "<!DOCTYPE html>\n<HTML><style>a{}</style><title>Too&nbsp;Many</title><!-- <b> --><p>Try &lt;later&gt; &amp;lt;</p>\
                 <SCRIPT>if (a < b) {}</Script> now",
                "Too Many Try (later) &lt; now",
            ),
            ("<html><script>never ends", ""),
            ("<html><p", ""),
            (
                "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message><StringToSign>S</StringToSign></Error>",
                "AccessDenied: no",
            ),
            (
                "Get \"https://u:S@store/a?X-Amz-Signature=S\": 403, see http://x/y.",
                "Get \"https://store/a?…\": 403, see http://x/y.",
            ),
            ("é://x?S (git!https://u:S@h/x)", "é://x?… (git!https://h/x)"),
        ] {
            assert_eq!(plain_text(text), expected, "{text}");
        }
        let long = plain_text(&"é".repeat(1 << 20));
        assert_eq!((long.chars().count(), long.ends_with("é…")), (LONGEST + 1, true));
    }
}
