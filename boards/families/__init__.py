"""The device families the tool flow knows, one file each."""
