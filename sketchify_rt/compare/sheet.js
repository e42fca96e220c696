for (const input of document.querySelectorAll(".slider input")) {
  const slider = input.closest(".slider");
  const show = () => {
    slider.style.setProperty("--at", `${input.value}%`);
    input.setAttribute("aria-valuetext", `${input.value} % original`);
  };
  input.addEventListener("input", show);
  show(); // browsers keep the place of a slider over a reload
  const pair = slider.querySelector(".pair");
  const follow = (event) => {
    if (!event.buttons) return;
    const { left, width } = pair.getBoundingClientRect();
    input.value = (100 * (event.clientX - left)) / width;
    show();
  };
  pair.addEventListener("pointerdown", follow);
  pair.addEventListener("pointermove", follow);
}
