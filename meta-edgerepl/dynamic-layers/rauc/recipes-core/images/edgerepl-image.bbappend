# The disk stays as it is where EDGEREPL_SLOTS does not ask for slots.
require ${@'edgerepl-image-slots.inc' if d.getVar('EDGEREPL_SLOTS') == 'rauc' else ''}
