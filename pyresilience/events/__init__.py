"""Events and the listeners that come with the package."""
