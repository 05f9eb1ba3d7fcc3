# The part of nixpkgs' module system that nix/modules uses, by the same names and with the same
# meaning: options with types, merged definitions, conditions and priorities. `checks/modules` has
# the same modules evaluated by nixpkgs' own.
lib:
let
  inherit (lib) all attrNames catAttrs concatMap concatStringsSep elem filter foldl' functionArgs head
    intersectAttrs isAttrs isBool isFunction isInt isList isString last length listToAttrs mapAttrs
    min nameValuePair optionalAttrs removeAttrs tail unique;

  name = concatStringsSep ".";
  typeOf = value: value._type or null;

  # A definition without its conditions and priorities: values, each with its priority.
  discharge = priority: definition:
    if !isAttrs definition then [{ inherit priority; value = definition; }]
    else if typeOf definition == "merge" then concatMap (discharge priority) definition.contents
    else if typeOf definition == "if" then if definition.condition then discharge priority definition.content else [ ]
    else if typeOf definition == "override" then discharge definition.priority definition.content
    else [{ inherit priority; value = definition; }];

  # A module's configuration as sets, whose values have the conditions that the sets had.
  pushDown = config:
    let onValues = f: map (mapAttrs (_: f)) (pushDown config.content); in
    if typeOf config == "merge" then concatMap pushDown config.contents
    else if typeOf config == "if" then onValues (mkIf config.condition)
    else if typeOf config == "override" then onValues (mkOverride config.priority)
    else [ config ];

  # Definitions of one option, as its value.
  merge = path: type: definitions:
    let
      values = concatMap (discharge 100) definitions;
      priority = foldl' (least: value: min least value.priority) 9999 values;
      strongest = map (value: value.value) (filter (value: value.priority == priority) values);
    in
    if strongest == [ ] then throw "The option `${name path}' was accessed but has no value defined. Try setting the option."
    else if !all type.check strongest then throw "A definition for option `${name path}' is not of type `${type.description}'."
    else type.merge path strongest;

  equal = path: values:
    if all (value: value == head values) (tail values) then head values
    else throw "The option `${name path}' has conflicting definition values.";
  simple = typeName: description: check: { name = typeName; inherit check description; merge = equal; };

  isStringLike = value: isString value || builtins.isPath value || value ? outPath;

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOption = option: option // { _type = "option"; };

  # The values of a tree of options. `paths`: where the tree is; `declared`: sets of options;
  # `defined`: sets of definitions.
  evalOptions = path: freeformType: declared: defined:
    let
      names = unique (concatMap attrNames declared);
      value = option:
        let
          declarations = catAttrs option declared;
          definitions = catAttrs option defined;
          below = path ++ [ option ];
          declaration = foldl' (a: b: a // b) { } declarations;
          default = if declaration ? default then [ (mkOverride 1500 declaration.default) ] else [ ];
        in
        if (head declarations)._type or null == "option" then
          (declaration.apply or (x: x)) (merge below (declaration.type or types.unspecified) (definitions ++ default))
        else evalOptions below null declarations (concatMap pushDown definitions);
      unknown = filter (option: !(elem option names)) (unique (concatMap attrNames defined));
      free = map (set: removeAttrs set names) defined;
    in
    if unknown != [ ] && freeformType == null then throw "The option `${name (path ++ [ (head unknown) ])}' does not exist."
    else listToAttrs (map (option: nameValuePair option (value option)) names)
      // optionalAttrs (freeformType != null) (merge path freeformType free);

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      load = module:
        let
          file = if builtins.isPath module || isString module then import module else module;
          set = if isFunction file then file (if functionArgs file == { } then arguments else intersectAttrs (functionArgs file) arguments) else file;
          isShort = !(set ? config || set ? options);
          parts = if isShort then { config = removeAttrs set [ "imports" "freeformType" "_file" ]; } else set;
        in
        concatMap load (set.imports or [ ])
        ++ [{ options = parts.options or { }; config = parts.config or { }; freeformType = set.freeformType or null; }];
      arguments = specialArgs // { inherit lib config options; };
      loaded = concatMap load modules;
      freeform = filter (type: type != null) (map (module: module.freeformType) loaded);
      options = map (module: module.options) loaded;
      config = evalOptions prefix (if freeform == [ ] then null else last freeform) options
        (concatMap (module: pushDown module.config) loaded);
    in
    { inherit config options; };

  types = rec {
    unspecified = simple "unspecified" "unspecified value" (_: true);
    raw = simple "raw" "raw value" (_: true) // {
      merge = path: values: if length values == 1 then head values else throw "The option `${name path}' is defined multiple times.";
    };
    bool = simple "bool" "boolean" isBool;
    int = simple "int" "signed integer" isInt;
    port = simple "port" "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (value: isInt value && value >= 0 && value < 65536);
    str = simple "str" "string" isString;
    path = simple "path" "absolute path" (value: isStringLike value && builtins.substring 0 1 (toString value) == "/");
    package = simple "package" "package" (value: typeOf value == null && value.type or null == "derivation");
    enum = values: simple "enum" "one of ${concatStringsSep ", " (map builtins.toJSON values)}" (value: elem value values);
    anything = simple "anything" "anything" (_: true) // {
      merge = path: values: if all isAttrs values && length values > 1 then (attrsOf anything).merge path values else equal path values;
    };
    nullOr = type: {
      name = "nullOr";
      description = "null or ${type.description}";
      check = value: value == null || type.check value;
      merge = path: values:
        if all (value: value == null) values then null
        else if elem null values then throw "The option `${name path}' is defined both null and not null."
        else type.merge path values;
    } // optionalAttrs (type ? nested) { inherit (type) nested; };
    either = a: b: {
      name = "either";
      description = "${a.description} or ${b.description}";
      check = value: a.check value || b.check value;
      merge = path: values: if all a.check values then a.merge path values else b.merge path values;
    };
    oneOf = list: foldl' either (head list) (tail list);
    listOf = type: {
      name = "listOf";
      description = "list of ${type.description}";
      check = isList;
      merge = path: values: map (value: merge path type [ value ]) (concatMap (x: x) values);
    };
    attrsOf = type: {
      name = "attrsOf";
      description = "attribute set of ${type.description}";
      check = isAttrs;
      merge = path: values:
        let
          names = unique (concatMap attrNames values);
          definitions = attribute: concatMap (discharge 100) (catAttrs attribute values);
        in
        listToAttrs (map
          (attribute: nameValuePair attribute (merge (path ++ [ attribute ]) type (catAttrs attribute values)))
          (filter (attribute: definitions attribute != [ ]) names));
    } // optionalAttrs (type ? nested) { nested."<name>" = type.nested; };
    lazyAttrsOf = attrsOf;
    submodule = module: {
      name = "submodule";
      description = "submodule";
      check = value: isAttrs value || isFunction value;
      # For documentation.
      nested = (if isFunction module then module { name = "<name>"; } else module).options;
      merge = path: values: (evalModules {
        modules = [ module ] ++ map (value: if isFunction value then value else { config = value; }) values;
        specialArgs.name = last path;
        prefix = path;
      }).config;
    };
  };
in
{
  inherit evalModules mkIf mkOption mkOverride types;
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkEnableOption = subject: mkOption {
    type = types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${subject}.";
  };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
}
