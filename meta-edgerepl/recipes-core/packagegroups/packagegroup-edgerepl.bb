SUMMARY = "edgerepl and what it needs on a device"
DESCRIPTION = "edgerepl, Litestream and the data partition."

inherit packagegroup

RDEPENDS:${PN} = "\
    edgerepl \
    edgerepl-data \
"
