# meta-rauc's rauc-mark-good.service waits for boot-complete.target. Added to the group's own list, out of its order.
# nooelint: oelint.vars.dependsordered
RDEPENDS:${PN} += "edgerepl-boot-check"
