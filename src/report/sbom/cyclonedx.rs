//! Writes CycloneDX 1.6 as JSON (ECMA-424, first edition).
//! Stage: report (pure). Input: [`Inventory`]. Output: [`Bom`].

use serde::Serialize;

use super::base::BaseList;
use super::licence::Declared;
use super::{Component as Part, ForeignLayer, Inventory, identity, package_url, tool};
use crate::digest::Digest;
use crate::store::Store;

const IMAGE: &str = "image";

/// A bill of materials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bom {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    timestamp: String,
    tools: Tools,
    component: Component,
    supplier: Supplier,
}

#[derive(Debug, Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Debug, Serialize)]
struct Supplier {
    name: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    bom_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Supplier>,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pedigree: Option<Pedigree>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<ExternalReference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Debug, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Debug, Serialize)]
struct Licence {
    expression: String,
}

#[derive(Debug, Serialize)]
struct Pedigree {
    ancestors: Vec<Component>,
}

#[derive(Debug, Serialize)]
struct ExternalReference {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
}

#[derive(Debug, Serialize)]
struct Property {
    name: &'static str,
    value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    r#ref: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
}

/// Makes the CycloneDX document of an image.
pub fn cyclonedx(inventory: &Inventory<'_>) -> Bom {
    let Inventory { image, supplier, components: parts, foreign, bases } = inventory;
    let base = |base: &BaseList| ExternalReference {
        kind: "bom",
        url: base.uri.clone(),
        hashes: sha256(&base.digest),
    };
    let supplied = || Some(Supplier { name: (*supplier).to_owned() });
    let (tool, version) = tool();
    let mut components: Vec<_> = foreign.iter().map(layer).collect();
    components.extend(parts.iter().map(|part| component(part, supplier)));
    let refs = components.iter().filter_map(|component| component.bom_ref.clone());
    let mut dependencies = vec![Dependency { r#ref: IMAGE.to_owned(), depends_on: refs.collect() }];
    dependencies.extend(
        foreign.iter().map(|layer| Dependency { r#ref: layer_ref(layer), depends_on: Vec::new() }),
    );
    dependencies.extend(parts.iter().map(|part| {
        let depends_on = part.references.iter().map(|&at| bom_ref(&parts[at])).collect();
        Dependency { r#ref: bom_ref(part), depends_on }
    }));
    let metadata = Metadata {
        timestamp: image.created.clone(),
        tools: Tools {
            components: [Component {
                kind: "application",
                name: tool.to_owned(),
                version: version.to_owned(),
                ..Component::default()
            }],
        },
        component: Component {
            kind: "container",
            bom_ref: Some(IMAGE.to_owned()),
            supplier: supplied(),
            name: image.name.clone(),
            version: image.tag.clone().unwrap_or_else(|| image.manifest.to_string()),
            hashes: sha256(image.manifest.digest()),
            purl: Some(package_url::of_image(image)),
            external_references: bases.iter().map(base).collect(),
            ..Component::default()
        },
        supplier: Supplier { name: (*supplier).to_owned() },
    };
    let mut bom = Bom {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: String::new(),
        version: 1,
        metadata,
        components,
        dependencies,
    };
    bom.serial_number = format!("urn:uuid:{}", uuid(&identity(&bom)));
    bom
}

/// Makes a UUID from a digest (RFC 9562, version 8).
fn uuid(digest: &Digest) -> String {
    let mut bytes = digest.bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, e] = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn sha256(digest: &Digest) -> Vec<Hash> {
    vec![Hash { alg: "SHA-256", content: digest.hex() }]
}

fn bom_ref(part: &Part<'_>) -> String {
    part.path.base_path().to_owned()
}

fn layer_ref(layer: &ForeignLayer) -> String {
    format!("layer-{}", layer.number)
}

fn layer(layer: &ForeignLayer) -> Component {
    Component {
        kind: "file",
        bom_ref: Some(layer_ref(layer)),
        name: layer_ref(layer),
        version: layer.digest.to_string(),
        hashes: sha256(layer.digest.digest()),
        properties: vec![Property { name: "nix:output_path", value: layer.file.clone() }],
        ..Component::default()
    }
}

fn component(part: &Part<'_>, supplier: &str) -> Component {
    let facts = part.facts;
    let ancestor = |purl: &String| Component {
        kind: "library",
        name: part.name.clone(),
        version: part.version().to_owned(),
        purl: Some(purl.clone()),
        ..Component::default()
    };
    let ancestors: Vec<_> = facts.purls.iter().map(ancestor).collect();
    let reference = |kind: &'static str| {
        move |url: &String| ExternalReference { kind, url: url.clone(), hashes: Vec::new() }
    };
    let mut external_references: Vec<_> = facts.homepage.iter().map(reference("website")).collect();
    external_references.extend(facts.urls.iter().map(reference("source-distribution")));
    let hex = part.nar_hash.to_base16().trim_start_matches("sha256:").to_owned();
    Component {
        kind: "library",
        bom_ref: Some(bom_ref(part)),
        supplier: Some(Supplier { name: facts.supplier.as_deref().unwrap_or(supplier).to_owned() }),
        name: part.name.clone(),
        version: part.version().to_owned(),
        description: facts.description.clone(),
        hashes: vec![Hash { alg: "SHA-256", content: hex }],
        licenses: Declared::of(&facts.licenses)
            .expression
            .map(|expression| Licence { expression })
            .into_iter()
            .collect(),
        cpe: facts.cpe.clone(),
        purl: Some(package_url::of_component(part)),
        pedigree: (!ancestors.is_empty()).then_some(Pedigree { ancestors }),
        external_references,
        properties: vec![
            Property { name: "nix:output_path", value: Store::default().print(part.path) },
            Property { name: "nix:nar_hash", value: part.nar_hash.to_sri() },
        ],
    }
}
