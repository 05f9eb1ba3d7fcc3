# What stands for a base image in a derivation, as a string: the image spec of one of ours, whose layers
# are known; of other archives that were compressed the archive itself; null where there is none.
fromImage:
if fromImage == null || fromImage == "" then null
else "${fromImage.spec or fromImage.archive or fromImage}"
