//! The image below the layers that a build adds.
//! Stage: oci (pure). Input: layers, with the tree of each. Output: [`BaseImage`].

use std::collections::BTreeSet;
use std::sync::Arc;

use oci_spec::image::History;
use serde_json::Value;

use super::error::Problem;
use super::state_file::StateFile;
use crate::image_path::ImagePath;
use crate::layer::{
    ACCOUNT_FILES, AccountFile, BaseLayerTree, BaseTree, DATABASE_DIR, check_links,
};
use crate::oci::sources::SourceInfo;
use crate::oci::spec_layer::SpecLayer;
use crate::store::{Store, StorePath};

/// The image below the layers that a build adds.
#[derive(Debug)]
pub struct BaseImage {
    /// The whole image configuration (image-spec, config.md), as it was written.
    pub configuration: Value,
    /// The history: one entry for each layer, and entries without a layer between them.
    pub history: Vec<History>,
    /// The layers, from the bottom up.
    pub layers: Vec<SpecLayer>,
    /// Nix's registration of the store paths in layers that stowage made, sorted by path.
    pub sources: Vec<SourceInfo>,
    /// The store paths that these layers contain, unless another layer hides them.
    pub store_paths: BTreeSet<StorePath>,
    /// The directories and links that all layers together make.
    pub tree: BaseTree,
    /// The files of the base's Nix database.
    pub(super) state: Vec<StateFile>,
    /// The files of its accounts.
    pub(super) accounts: Vec<StateFile>,
}

/// The changes that a layer makes to the layers below.
pub struct LayerTree {
    /// The directories and links of the layer.
    pub tree: Arc<BaseLayerTree>,
    /// True if the layer consists of store paths: it can't hide other store paths.
    pub of_store_paths: bool,
}

impl BaseImage {
    /// Combines layers with the tree of each.
    ///
    /// # Errors
    /// Fails with [`Problem::Links`].
    pub fn new(
        configuration: Value,
        history: Vec<History>,
        layers: Vec<SpecLayer>,
        sources: Vec<SourceInfo>,
        trees: Vec<LayerTree>,
    ) -> Result<Self, Problem> {
        let mut tree = BaseTree::default();
        let mut store_paths = BTreeSet::new();
        for (layer, LayerTree { tree: layer_tree, of_store_paths }) in layers.iter().zip(&trees) {
            if !of_store_paths {
                store_paths.retain(|path: &StorePath| {
                    let name = Store::default().print(path);
                    !layer_tree.hides(&ImagePath::normal(name.as_bytes()))
                });
            }
            let contents = layer.contents();
            store_paths.extend(contents.into_iter().flat_map(|it| it.store_paths.iter().cloned()));
            tree.apply(layer_tree);
        }
        let mut state = Vec::new();
        for (name, path) in tree.state_files(DATABASE_DIR)? {
            let has = |layer: &LayerTree| layer.tree.has_state(&path) || layer.tree.has_link(&path);
            let layer = trees.iter().rposition(has);
            state.extend(layer.map(|layer| StateFile::new(name, path, layer)));
        }
        let mut accounts = Vec::new();
        for name in ACCOUNT_FILES {
            // If links to the file lead in a circle, this is an error later, and only if accounts are
            // declared.
            if let Ok(Some(AccountFile::Here(path))) = tree.account_file(name) {
                let layer = trees.iter().rposition(|layer| layer.tree.has_state(&path));
                accounts.extend(layer.map(|layer| StateFile::new(name, path, layer)));
            }
        }
        Ok(Self { configuration, history, layers, sources, store_paths, tree, state, accounts })
    }
}

/// Checks the links of layers. An error comes with the index of its layer.
pub(super) fn check_trees(trees: &[LayerTree]) -> Result<(), (usize, Problem)> {
    let trees: Vec<_> = trees.iter().map(|layer| &*layer.tree).collect();
    check_links(&trees).map_err(|(layer, problem)| (layer, Problem::Layer(problem)))
}
