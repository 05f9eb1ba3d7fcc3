//! Compares documents that the program prints with the schemas of the manual.

use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

/// Reads a schema of the manual.
pub fn read(name: &str) -> Value {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/schemas");
    let text = fs::read_to_string(directory.join(format!("{name}.json")));
    serde_json::from_str(&text.unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap()
}

/// Fails if a document is not what the schema of that name says.
#[track_caller]
pub fn check(name: &str, document: &Value) {
    if let Err(error) = validate(&read(name), document, "") {
        panic!("not as the schema `{name}` says: {error}\n{document:#}");
    }
}

/// Fails if a text is not a JSON document as the schema of that name says; else returns it.
#[track_caller]
pub fn checked(name: &str, text: &str) -> Value {
    let document = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    check(name, &document);
    document
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Validates by the keywords that the schemas use. Panics for any other keyword, which would not be
/// checked.
pub fn validate(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let fail = |problem: String| Err(format!("{place}: {problem}"));
    for (keyword, wanted) in schema.as_object().unwrap() {
        let list = || wanted.as_array().unwrap();
        match &**keyword {
            "$schema" | "title" | "description" => {}
            "type" => {
                let types = if wanted.is_array() { list() } else { std::slice::from_ref(wanted) };
                let found = type_of(value);
                if !types.iter().any(|it| it == found || (it == "number" && found == "integer")) {
                    return fail(format!("{found}, not {wanted}"));
                }
            }
            "enum" if list().contains(value) => {}
            "enum" => return fail(format!("{value} is not one of {wanted}")),
            "minimum" => {
                if value.as_f64() < wanted.as_f64() {
                    return fail(format!("{value} is less than {wanted}"));
                }
            }
            "pattern" => {
                let pattern = Regex::new(wanted.as_str().unwrap()).unwrap();
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    return fail(format!("{value} does not match {wanted}"));
                }
            }
            "anyOf" => {
                let tried = list().iter().map(|schema| validate(schema, value, place));
                let errors: Vec<_> = tried.collect();
                if errors.iter().all(Result::is_err) {
                    return fail(format!("none of: {errors:?}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(wanted, item, &format!("{place}/{index}"))?;
                }
            }
            "required" => {
                let Some(object) = value.as_object() else { continue };
                if let Some(key) =
                    list().iter().find(|key| !object.contains_key(key.as_str().unwrap()))
                {
                    return fail(format!("{key} is missing"));
                }
            }
            "properties" | "additionalProperties" => {
                let others = &schema["additionalProperties"];
                for (key, item) in value.as_object().into_iter().flatten() {
                    match schema["properties"].get(key) {
                        Some(schema) => validate(schema, item, &format!("{place}/{key}"))?,
                        None if others.is_object() => {
                            validate(others, item, &format!("{place}/{key}"))?;
                        }
                        None => return fail(format!("`{key}` is not described")),
                    }
                }
            }
            other => panic!("{place}: the keyword `{other}` is not checked"),
        }
    }
    Ok(())
}

#[test]
fn a_document_that_differs_is_found() {
    let good = serde_json::json!({
        "layersKept": 1, "bytesKept": 2, "layersNew": [], "bytesNew": 0, "bytesToDocker": 0,
        "pathsNew": [], "pathsGone": [format!("/nix/store/{}-a", "1".repeat(32))],
    });
    check("diff", &good);
    for (key, value) in [
        ("layersKept", serde_json::json!(-1)),
        ("layersKept", serde_json::json!("1")),
        ("pathsNew", serde_json::json!(["a"])),
        ("layersNew", serde_json::json!([{ "number": 1 }])),
        ("more", serde_json::json!(1)),
    ] {
        let mut other = good.clone();
        other[key] = value;
        assert!(validate(&read("diff"), &other, "").is_err(), "{other}");
    }
    let mut missing = good;
    missing.as_object_mut().unwrap().remove("bytesNew");
    assert!(validate(&read("diff"), &missing, "").is_err());
}
