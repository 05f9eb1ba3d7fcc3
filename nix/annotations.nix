{ lib }:

# Checks the annotations of an image or an index: strings by key. Adds the annotations that name a pulled base
# image, unless they are given; null leaves one out.
{
  # The function whose argument these are, for messages.
  function
, annotations
  # The base image, or null.
, fromImage ? null
}:
let
  complain = problem: throw "stowage.${function}: ${problem}";
  # Control characters. A value may have tabs and lines.
  inKeys = map (code: builtins.fromJSON "\"\\u00${code}\"") codes;
  inValues = lib.filter (character: !lib.elem character [ "\t" "\n" "\r" ]) inKeys;
  codes = lib.tail (lib.concatMap (first: map (last: first + last) hexDigits) [ "0" "1" ]) ++ [ "7f" ];
  hexDigits = lib.stringToCharacters "0123456789abcdef";
  without = characters: lib.replaceStrings characters (map (_: "") characters);
  checked = key: value:
    if key == "" then complain "`annotations` has a key of no letters"
    else if without inKeys key != key then
      complain "`annotations` has the key ${builtins.toJSON key}, with a control character in it"
    else if value == null then null
    else if !lib.isString value then complain "`annotations.\"${key}\"` must be a string, not ${lib.typeOf value}"
    else if without inValues value != value then complain "`annotations.\"${key}\"` has a control character in it"
    else value;
  given =
    if lib.isAttrs annotations then lib.mapAttrs checked annotations
    else complain "`annotations` must be a set of strings, such as `{ \"org.opencontainers.image.source\" = \"https://example.org\"; }`";
  all = (fromImage.baseAnnotations or { }) // given;
in
removeAttrs all (lib.filter (key: all.${key} == null) (lib.attrNames all))
