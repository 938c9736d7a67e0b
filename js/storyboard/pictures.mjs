/** Images in ComfyUI's folders, by the names that its image loader has for them: "faces/mira.png", "film.png [output]". */

const NAME = /^(?:(.*)[\\/])?([^\\/]*?)(?: \[(input|output|temp)\])?$/s;

export class Pictures {
  /** `api`: ComfyUI's. */
  constructor(api) {
    this.api = api;
  }

  /** Where an image is. */
  url(name) {
    const [, subfolder = "", filename = name, type = "input"] = NAME.exec(name) ?? [];
    return this.api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  }

  /** Puts a file into ComfyUI's input folder and gives its name there. Throws when it was not taken. */
  async upload(file) {
    const body = new FormData();
    body.append("image", file);
    const answer = await this.api.fetchApi("/upload/image", { method: "POST", body });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const { name, subfolder } = await answer.json();
    return subfolder ? `${subfolder}/${name}` : name;
  }

  /** Names of the images in the input folder, as Load Image offers them. */
  async names() {
    const answer = await this.api.fetchApi("/object_info/LoadImage");
    const [options, more] = (await answer.json()).LoadImage?.input?.required?.image ?? [[]];
    return Array.isArray(options) ? options : (more?.options ?? []);
  }
}

/** The images among what is dropped or pasted. */
export function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** Whether something is dragged that may be an image file; its kind is not always told before it is dropped. */
export function bringsFiles(transfer) {
  return [...(transfer?.types ?? [])].includes("Files");
}
