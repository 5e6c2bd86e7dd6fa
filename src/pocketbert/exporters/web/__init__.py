"""Plans as data, for browsers and Node: the folder that the npm package `pocketbert` loads."""
