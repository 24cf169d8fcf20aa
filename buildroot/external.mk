include $(sort $(wildcard $(BR2_EXTERNAL_EDGEREPL_PATH)/package/*/*.mk))
