//! The rule that the text of an error does not repeat its cause.
//!
//! The message of a command is the text of its error, followed by the texts of all causes.

use syn::visit::Visit;
use syn::{Attribute, Field, Fields, ItemStruct, Variant};

use super::{SOURCE, sources};

/// Returns the text of `#[error("…")]` with its arguments, unless it is `transparent`.
fn text(attributes: &[Attribute]) -> Option<String> {
    let error = attributes.iter().find(|attribute| attribute.path().is_ident("error"))?;
    let text = error.meta.require_list().ok()?.tokens.to_string();
    (text != "transparent").then_some(text)
}

/// Returns whether thiserror takes a field for the cause.
fn is_cause(field: &Field) -> bool {
    let marked = |name| field.attrs.iter().any(|attribute| attribute.path().is_ident(name));
    marked("from") || marked("source") || field.ident.as_ref().is_some_and(|name| name == "source")
}

/// Returns whether the text of an error has its cause in it.
fn repeats_cause(attributes: &[Attribute], fields: &Fields) -> bool {
    let Some(text) = text(attributes) else { return false };
    fields.iter().enumerate().any(|(index, field)| {
        let name = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
        let placeholders = [format!("{{{name}}}"), format!("{{{name}:")];
        is_cause(field) && placeholders.iter().any(|placeholder| text.contains(placeholder))
    })
}

#[derive(Default)]
struct Repeated(Vec<String>);

impl Visit<'_> for Repeated {
    fn visit_variant(&mut self, variant: &Variant) {
        if repeats_cause(&variant.attrs, &variant.fields) {
            self.0.push(variant.ident.to_string());
        }
    }

    fn visit_item_struct(&mut self, item: &ItemStruct) {
        if repeats_cause(&item.attrs, &item.fields) {
            self.0.push(item.ident.to_string());
        }
    }
}

fn repeated(code: &str) -> Vec<String> {
    let mut found = Repeated::default();
    found.visit_file(&syn::parse_file(code).unwrap());
    found.0
}

#[test]
fn causes_are_said_once() {
    let mut files = Vec::new();
    sources(SOURCE.as_ref(), &mut files);
    files.retain(|(file, _)| file.ends_with(".rs"));
    let in_file = |(file, text): &(String, String)| {
        repeated(text).into_iter().map(|name| format!("{file}: {name}")).collect::<Vec<_>>()
    };
    let found: Vec<_> = files.iter().flat_map(in_file).collect();
    assert!(found.is_empty(), "each of these errors has its cause in its own text: {found:#?}");
}

#[test]
fn repeated_causes_are_found() {
    let code = r#"
        enum E {
            #[error("one {0}")]
            One(#[from] A),
            #[error("two {source:?}")]
            Two { source: A },
            #[error("three {0}")]
            Three(A),
            #[error("four")]
            Four(#[source] A),
            #[error(transparent)]
            Five(#[from] B),
            #[error("six {file}")]
            Six { file: A, source: A },
        }
        #[error("seven {0}")]
        struct Seven(#[source] A);
    "#;
    assert_eq!(repeated(code), ["One", "Two", "Seven"]);
}
