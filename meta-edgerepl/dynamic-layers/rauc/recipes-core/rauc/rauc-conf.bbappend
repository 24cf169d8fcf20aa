# A product's own system.conf stays where EDGEREPL_SLOTS does not ask for this layer's.
require ${@'rauc-conf-edgerepl.inc' if d.getVar('EDGEREPL_SLOTS') == 'rauc' else ''}
