//! Writes SPDX 2.3 as JSON (spdx-spec 2.3, annex "SPDX JSON schema").
//! Stage: report (pure). Input: [`Inventory`]. Output: [`SpdxDocument`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::base::{BaseList, BaseListFormat};
use super::facts::is_url;
use super::licence::{Declared, OwnLicence, identifier};
use super::{Component, ForeignLayer, ImagePart, Inventory, identity, package_url, tool};
use crate::store::Store;

const NONE: &str = "NOASSERTION";
const IMAGE: &str = "SPDXRef-image";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
/// The beginning of the namespaces of documents. They are not addresses of web pages: `.invalid` is
/// reserved (RFC 2606).
const NAMESPACE: &str = "https://stowage.invalid/spdx";

/// An SPDX document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpdxDocument {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_document_refs: Vec<DocumentReference>,
    packages: Vec<Package>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<ExtractedLicence>,
    relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

/// A reference to another document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DocumentReference {
    external_document_id: String,
    spdx_document: String,
    checksum: Checksum,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    version_info: String,
    supplier: String,
    download_location: String,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    checksums: [Checksum; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalReference>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalReference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtractedLicence {
    license_id: String,
    name: String,
    extracted_text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    see_alsos: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// Makes the SPDX document of an image.
pub fn spdx(inventory: &Inventory<'_>) -> SpdxDocument {
    let Inventory { image, supplier, components, foreign, bases } = inventory;
    let ids: Vec<_> = components.iter().map(id).collect();
    let mut own = BTreeMap::new();
    let mut packages = vec![image_package(image, supplier, bases)];
    packages.extend(foreign.iter().map(|layer| layer_package(layer, supplier)));
    packages.extend(components.iter().zip(&ids).map(|(component, id)| {
        let declared = Declared::of(&component.facts.licenses);
        own.extend(declared.own);
        package(component, id.clone(), declared.expression, supplier)
    }));
    let contained = packages[1..].iter().map(|package| relation(IMAGE, "CONTAINS", &package.id));
    let mut relationships = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    relationships.extend(contained);
    let external: Vec<_> = external_documents(bases).collect();
    relationships.extend(external.iter().map(|base| {
        let document = format!("{}:{DOCUMENT}", base.external_document_id);
        relation(IMAGE, "DESCENDANT_OF", &document)
    }));
    for (component, id) in components.iter().zip(&ids) {
        let to = component.references.iter().map(|&at| relation(id, "DEPENDS_ON", &ids[at]));
        relationships.extend(to);
    }
    let (tool, version) = tool();
    let mut document = SpdxDocument {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: match &image.tag {
            Some(tag) => format!("{}:{tag}", image.name),
            None => image.name.clone(),
        },
        document_namespace: String::new(),
        creation_info: CreationInfo {
            created: image.created.clone(),
            creators: vec![format!("Organization: {supplier}"), format!("Tool: {tool}-{version}")],
        },
        external_document_refs: external,
        packages,
        has_extracted_licensing_infos: own.into_iter().map(extracted).collect(),
        relationships,
    };
    let manifest = image.manifest.digest().hex();
    document.document_namespace =
        format!("{NAMESPACE}/sha256-{manifest}/{}", &identity(&document).hex()[..32]);
    document
}

fn id(component: &Component<'_>) -> String {
    format!("SPDXRef-nix-{}", identifier(component.path.base_path()))
}

fn relation(from: &str, kind: &'static str, to: &str) -> Relationship {
    Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    }
}

fn purl(locator: String) -> ExternalReference {
    ExternalReference {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator: locator,
    }
}

fn sha256(hex: String) -> [Checksum; 1] {
    [Checksum { algorithm: "SHA256", checksum_value: hex }]
}

/// Refers to the SBOMs of the base image that are SPDX: other documents are no part of a relationship.
fn external_documents(bases: &[BaseList]) -> impl Iterator<Item = DocumentReference> {
    let spdx = bases.iter().filter(|base| base.format == BaseListFormat::Spdx);
    spdx.zip(1..).map(|(base, number)| {
        let [checksum] = sha256(base.digest.hex());
        DocumentReference {
            external_document_id: format!("DocumentRef-base-{number}"),
            spdx_document: base.uri.clone(),
            checksum,
        }
    })
}

fn image_package(image: &ImagePart, supplier: &str, bases: &[BaseList]) -> Package {
    let manifest = image.manifest.digest().hex();
    let others = bases.iter().filter(|base| base.format != BaseListFormat::Spdx);
    let others = others.map(|base| ExternalReference {
        reference_category: "OTHER",
        reference_type: "base-image-bom",
        reference_locator: base.uri.clone(),
    });
    Package {
        version_info: image.tag.clone().unwrap_or_else(|| image.manifest.to_string()),
        primary_package_purpose: Some("CONTAINER"),
        external_refs: [purl(package_url::of_image(image))].into_iter().chain(others).collect(),
        ..bare(IMAGE.to_owned(), image.name.clone(), supplier, manifest)
    }
}

fn layer_package(layer: &ForeignLayer, supplier: &str) -> Package {
    let ForeignLayer { number, digest, file } = layer;
    let name = format!("layer-{number}");
    Package {
        version_info: digest.to_string(),
        primary_package_purpose: Some("ARCHIVE"),
        comment: Some(format!(
            "{file}: a layer that is no store path's; its checksum is the blob's"
        )),
        ..bare(format!("SPDXRef-{name}"), name, supplier, digest.digest().hex())
    }
}

fn package(
    component: &Component<'_>,
    id: String,
    licence: Option<String>,
    supplier: &str,
) -> Package {
    let facts = component.facts;
    let mut external_refs = vec![purl(package_url::of_component(component))];
    external_refs.extend(facts.purls.iter().cloned().map(purl));
    external_refs.extend(facts.cpe.clone().map(|reference_locator| ExternalReference {
        reference_category: "SECURITY",
        reference_type: "cpe23Type",
        reference_locator,
    }));
    let supplier = facts.supplier.as_deref().unwrap_or(supplier);
    let path = Store::default().print(component.path);
    let hex = component.nar_hash.to_base16().trim_start_matches("sha256:").to_owned();
    Package {
        version_info: component.version().to_owned(),
        download_location: facts.urls.first().cloned().unwrap_or_else(|| NONE.to_owned()),
        homepage: facts.homepage.clone(),
        license_declared: licence.unwrap_or_else(|| NONE.to_owned()),
        summary: facts.description.clone(),
        comment: Some(format!("{path}; its checksum is the NAR's")),
        external_refs,
        ..bare(id, component.name.clone(), supplier, hex)
    }
}

/// Makes a package with these fields, and the value "not known" for all others.
fn bare(id: String, name: String, supplier: &str, hex: String) -> Package {
    Package {
        id,
        name,
        version_info: String::new(),
        supplier: format!("Organization: {supplier}"),
        download_location: NONE.to_owned(),
        files_analyzed: false,
        primary_package_purpose: None,
        homepage: None,
        license_concluded: NONE,
        license_declared: NONE.to_owned(),
        copyright_text: NONE,
        summary: None,
        comment: None,
        checksums: sha256(hex),
        external_refs: Vec::new(),
    }
}

fn extracted((license_id, licence): (String, OwnLicence)) -> ExtractedLicence {
    let OwnLicence { name, url } = licence;
    let extracted_text = match &url {
        Some(url) => format!("{name}: {url}"),
        None => name.clone(),
    };
    let see_alsos = url.into_iter().filter(|url| is_url(url)).collect();
    ExtractedLicence { license_id, name, extracted_text, see_alsos }
}
