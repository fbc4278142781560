"""Use of the shared model on a site's own data: predict, detect, forecast, explain, export."""
