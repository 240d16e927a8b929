"""The operator: keeps DragonDeployments and EdgeDevices as their resources say."""
