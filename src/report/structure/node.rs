//! A document of tests as a tree, whether it was YAML or JSON.
//! Stage: report (pure). Input: text. Output: [`YamlNode`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::DocumentError;
use crate::oci::unpack::values;

/// The most nodes of a document: a few bytes with YAML's aliases can stand for very many.
const NODES: usize = 100_000;
/// The number of bytes of text that count as one node more where text is copied.
const TEXT: usize = 64;
const TOO_LARGE: &str = "it is too large: it has too many values, or too many within each other";
/// The most lists and maps that may be nested.
const DEPTH: usize = 64;

/// A node of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlNode {
    /// The line and column in the document, counted from 1; none in JSON.
    pub at: Option<(usize, usize)>,
    /// The value.
    pub value: Value,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Null,
    /// Text. Without quotes it may also stand for a number or a boolean.
    Text {
        /// The text.
        text: String,
        /// True if it has no quotes.
        is_plain: bool,
    },
    /// A list.
    List(Vec<YamlNode>),
    /// A map, in the order of the document, each key once.
    Map(Vec<(String, YamlNode)>),
}

impl Value {
    /// Names the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text { is_plain: false, .. } => "text in quotes",
            Self::Text { .. } => "a plain value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Parses JSON.
pub fn of_json(text: &str) -> Result<YamlNode, DocumentError> {
    if values(text.as_bytes()) > NODES {
        return Err(DocumentError::new(None, "", TOO_LARGE));
    }
    serde_json::from_str(text).map_err(|error| {
        // The position is kept in fields of its own, so that it is cut off from the reason.
        let reason = error.to_string();
        let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
        DocumentError::new(Some((error.line(), error.column())), "", reason)
    })
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(|value| Self { at: None, value })
    }
}

struct JsonVisitor;

fn plain(text: impl fmt::Display) -> Value {
    Value::Text { text: text.to_string(), is_plain: true }
}

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(plain(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(plain(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(plain(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(plain(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text { text: text.to_owned(), is_plain: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut map, mut keys) = (Vec::new(), BTreeSet::new());
        while let Some((key, value)) = entries.next_entry::<String, YamlNode>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            map.push((key, value));
        }
        Ok(Value::Map(map))
    }
}

/// Parses YAML: one document.
pub fn of_yaml(text: &str) -> Result<YamlNode, DocumentError> {
    // The parser keeps all tokens of a list or map in brackets that may yet be a key.
    if text.bytes().filter(|byte| b",[{?".contains(byte)).count() > NODES {
        return Err(DocumentError::new(None, "", TOO_LARGE));
    }
    let mut reader =
        YamlReader { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => break,
            (Event::DocumentStart(_), span) => {
                if document.is_some() {
                    let reason = "it has more than one document, and one is read";
                    return Err(DocumentError::new(place(span), "", reason));
                }
                let first = reader.next()?;
                document = Some(reader.node(first, 0)?);
            }
            _ => {}
        }
    }
    Ok(document.unwrap_or(YamlNode { at: None, value: Value::Null }))
}

struct YamlReader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: BTreeMap<usize, YamlNode>,
    nodes: usize,
}

fn place(span: Span) -> Option<(usize, usize)> {
    Some((span.start.line(), span.start.col() + 1))
}

impl<'t> YamlReader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), DocumentError> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = Some((error.marker().line(), error.marker().col() + 1));
                Err(DocumentError::new(at, "", error.info()))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(
        &mut self,
        (event, span): (Event<'t>, Span),
        depth: usize,
    ) -> Result<YamlNode, DocumentError> {
        let at = place(span);
        let error = |reason: &str| DocumentError::new(at, "", reason);
        self.nodes += 1;
        if self.nodes > NODES || depth > DEPTH {
            return Err(error(TOO_LARGE));
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                let node = node.ok_or_else(|| error("the alias stands for what it is in"))?;
                self.nodes += size(node);
                if self.nodes > NODES {
                    return Err(error(TOO_LARGE));
                }
                return Ok(YamlNode { at, ..node.clone() });
            }
            Event::Scalar(text, style, anchor, tag) => {
                // A tag such as `!!bool` or `!!str` says what the text is.
                let is_plain = match &tag {
                    Some(tag) => matches!(&*tag.suffix, "bool" | "int" | "null"),
                    None => style == ScalarStyle::Plain,
                };
                let is_null = is_plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = text.into_owned();
                (if is_null { Value::Null } else { Value::Text { text, is_plain } }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        event => list.push(self.node(event, depth + 1)?),
                    }
                }
                (Value::List(list), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            _ => return Err(error("a value is missing")),
        };
        let node = YamlNode { at, value };
        if anchor > 0 {
            self.nodes += size(&node);
            if self.nodes > NODES {
                return Err(DocumentError::new(at, "", TOO_LARGE));
            }
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Value, DocumentError> {
        let (mut map, mut keys) = (Vec::new(), BTreeSet::new());
        let mut merged = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                event => self.node(event, depth + 1)?,
            };
            let next = self.next()?;
            let value = self.node(next, depth + 1)?;
            let error = |reason: &str| DocumentError::new(key.at, "", reason);
            let Value::Text { text, is_plain } = key.value else {
                return Err(error("a key must be text"));
            };
            // The entries of this value are added to the map, except keys that the map has itself
            // (YAML, "Merge Key").
            if is_plain && text == "<<" {
                merged.push(value);
            } else if !keys.insert(text.clone()) {
                return Err(error(&format!("the key `{text}` is there twice")));
            } else {
                map.push((text, value));
            }
        }
        let mut open = merged;
        open.reverse();
        while let Some(node) = open.pop() {
            match node.value {
                Value::Map(entries) => {
                    for (key, value) in entries {
                        if keys.insert(key.clone()) {
                            map.push((key, value));
                        }
                    }
                }
                Value::List(nodes) => open.extend(nodes.into_iter().rev()),
                Value::Null => {}
                Value::Text { .. } => {
                    return Err(DocumentError::new(node.at, "", "`<<` must be a map"));
                }
            }
        }
        Ok(Value::Map(map))
    }
}

/// Returns the number of nodes at a node and below it. Long text counts as several.
fn size(node: &YamlNode) -> usize {
    match &node.value {
        Value::Null => 1,
        Value::Text { text, .. } => 1 + text.len() / TEXT,
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Map(map) => {
            let entry = |(key, node): &(String, YamlNode)| key.len() / TEXT + size(node);
            1 + map.iter().map(entry).sum::<usize>()
        }
    }
}
